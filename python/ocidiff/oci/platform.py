"""Platform: what an image runs on, and which of several images fits. Spec: image-spec image-index.md, config.md."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Final, Self

from ocidiff.errors import UsageError
from ocidiff.oci.encoding import NO_MEMBERS, Members, present
from ocidiff.values import dataclass

# uname's word for a machine, in GOARCH terms.
_MACHINES: Final = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
# The variant that is meant when none is given.
_USUAL_VARIANTS: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_PLATFORM: Final = r"([a-z0-9]+)/([a-z0-9]+)(?:/([A-Za-z0-9.]+))?"
# Worse than any that is told.
_UNTOLD_RANK: Final = 100
_ARM_VARIANT: Final = r"v([0-9])"


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform that an image runs on.

    Attributes:
        architecture: CPU, in GOARCH terms; empty when unknown, as in images that some tools begin with.
        os: Operating system, in GOOS terms; empty when unknown.
        variant: Variant of the CPU (`v7`).
        os_version: Version of the operating system.
        os_features: Features of it that are needed.
        extra: Unknown members.
    """

    architecture: str
    os: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def of_machine(cls) -> Self:
        """The platform of this machine."""
        machine = os.uname().machine
        architecture, variant = _MACHINES.get(machine, (machine, ""))
        return cls(architecture, "linux", variant)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The platform that `os/arch[/variant]` names.

        Raises:
            UsageError: The text has another form.
        """
        match = re.fullmatch(_PLATFORM, text)
        if match is None:
            raise UsageError(f"platform {text[:100]!r}: takes OS/ARCH or OS/ARCH/VARIANT")
        return cls(match[2], match[1], match[3] or "")

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """The platform that a JSON value is, in a descriptor.

        Raises:
            DocumentError: It is none.
        """
        members = Members(value, where)
        platform = cls.take(members)
        return replace(platform, extra=members.rest())

    @classmethod
    def take(cls, members: Members) -> Self:
        """The platform whose members stand among others, as in an image configuration."""
        return cls(
            architecture=members.text("architecture"),
            os=members.text("os"),
            variant=members.text("variant"),
            os_version=members.text("os.version"),
            os_features=members.texts("os.features"),
        )

    def document(self) -> dict[str, object]:
        """The JSON object, members in Go's order."""
        return {
            **present(
                [
                    ("architecture", self.architecture),
                    ("os", self.os),
                    ("os.version", self.os_version),
                    ("os.features", list(self.os_features)),
                    ("variant", self.variant),
                ]
            ),
            **self.extra,
        }

    def completed(self, other: Platform) -> Self:
        """Return the platform with `other` in place of what is unknown."""
        if not self.architecture:
            return replace(self, architecture=other.architecture, variant=other.variant, os=self.os or other.os)
        return replace(self, os=self.os or other.os)

    def rank(self, wanted: Platform) -> int | None:
        """Return a rank of how well this platform runs on `wanted`: lower is better; None if it does not run there."""
        if not (self.os and self.architecture):
            # One that is not told may be the one.
            told = (self.os or wanted.os, self.architecture or wanted.architecture)
            return _UNTOLD_RANK if told == (wanted.os, wanted.architecture) else None
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return None
        usual = _USUAL_VARIANTS.get(self.architecture, "")
        have, want = self.variant or usual, wanted.variant or usual
        if have == want:
            return 0
        have_arm, want_arm = re.fullmatch(_ARM_VARIANT, have), re.fullmatch(_ARM_VARIANT, want)
        if self.architecture == "arm" and have_arm and want_arm and int(have_arm[1]) < int(want_arm[1]):
            return int(want_arm[1]) - int(have_arm[1])
        return None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def best_match(platforms: Sequence[Platform | None], wanted: Platform) -> int | None:
    """Return the position of the platform that runs best on `wanted`, the first of equals; None if there is none."""
    ranks = [(rank, at) for at, have in enumerate(platforms) if have and (rank := have.rank(wanted)) is not None]
    return min(ranks)[1] if ranks else None
