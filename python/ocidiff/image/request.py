"""Request: what a commit is asked for, checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from ocidiff.errors import UsageError
from ocidiff.image.changes import ConfigChanges, check_text
from ocidiff.image.reference import name_to_give
from ocidiff.image.source import CommitSource, Parent, check_source
from ocidiff.layer.differ import engine_options
from ocidiff.layer.input import UpperTar
from ocidiff.layer.limits import Limits
from ocidiff.layer.operand import Tree
from ocidiff.layer.options import MOST_LAYERS, Compression, DiffOptions, LayerOptions, Reuse, choice, texts
from ocidiff.oci.encoding import NO_TEXTS
from ocidiff.oci.media_type import Format
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import is_timestamp
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.image.image import Image
    from ocidiff.image.merge import Merge
    from ocidiff.layer.arguments import DiffArguments
    from ocidiff.oci.descriptor import Descriptor
    from ocidiff.services.bundle import Services

SECRETS: Final = "secrets"
"""The word for what may not be in a layer: private keys, tokens and passwords."""


@dataclass(frozen=True, slots=True)
class Step:
    """The entry of a commit in the history.

    Attributes:
        author: Who did it; empty for the author of the base.
        comment: Free text.
        created: RFC 3339 time; empty for now, or for the source date epoch.
        created_by: The command; empty for what the container runs, or one of the base would; else `ocidiff commit`.
        omit_history: Leave out the history of the base, and this step.
    """

    author: str = ""
    comment: str = ""
    created: str = ""
    created_by: str = ""
    omit_history: bool = False

    @classmethod
    def of(
        cls, author: str | None, message: str | None, created: str | None, created_by: str | None, *, omit_history: bool
    ) -> Self:
        """Return what loose arguments say.

        Raises:
            UsageError: The time is none of RFC 3339, or a text is not UTF-8.
        """
        if created is not None and not is_timestamp(created):
            raise UsageError(f"created {created[:100]!r}: must be an RFC 3339 time")
        check_text("author or message", author or "", message or "", created_by or "")
        return cls(author or "", message or "", created or "", created_by or "", omit_history)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The parts of a commit outside its store.

    Attributes:
        find_base: Brings the base into the store, under its lease; None to look for its name there.
        publish: Brings the image to where it goes, in place of giving it a name in the store; None to name it there.
    """

    find_base: Callable[[Services], Image] | None = None
    publish: Callable[[Services, Descriptor], None] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """The request of a commit; see `CommitArguments`.

    Attributes:
        source: The directory, the tar of an overlay's upper directory, the layers of an overlay over the base, or the
            container.
        name: Name of the image.
        base: Name of the image that a directory grows on; None or `scratch` for none.
        lower: Path of the tree of the base, or an index of it; None to unpack the base.
        platform: Which image of a base for several platforms, and what an image without base runs on; None for this machine.
        step: What the history says.
        changes: How the image is to be run, beside what the base says.
        annotations: Annotations of the manifest, added to those of the base.
        family: Media types of the manifest and of all that it names.
        options: What the layer shall be.
        limits: What the layers of a base that is unpacked may not pass together.
        additions: Files of the host to add in a layer of their own, each `SRC:DEST`.
        upper: Changes of a container that are not in its tree on disk; they become a second layer.
        pause: Pause a running container while its tree is read.
        elsewhere: What is done in other places than the store.
        merge: Which layers of the image become one; None for none.
        layers: How many layers the change is written as, at most.
        deny: What the new layers may not hold: `secrets`, or nothing.
        parent: The base and its tree, opened already: `base` and `lower` do not count then.
    """

    source: CommitSource
    name: str
    base: str | None
    lower: Tree | None
    platform: Platform | None
    step: Step
    changes: ConfigChanges
    annotations: Mapping[str, str]
    family: Format
    options: LayerOptions
    limits: Limits
    additions: Sequence[str] = ()
    upper: UpperTar | None = None
    pause: bool = True
    elsewhere: Elsewhere = Elsewhere()
    merge: Merge | None = None
    layers: int = 1
    deny: Sequence[str] = ()
    parent: Parent | None = None

    @classmethod
    def of(
        cls,
        source: CommitSource,
        name: str,
        options: DiffOptions | None,
        elsewhere: Elsewhere | None = None,
        *,
        upper: UpperTar | None = None,
        base: str | None = None,
        lower: Tree | None = None,
        author: str | None = None,
        message: str | None = None,
        changes: ConfigChanges | Sequence[str] = (),
        additions: Sequence[str] = (),
        annotations: Mapping[str, str] = NO_TEXTS,
        format: str = Format.OCI,  # noqa: A002 - as the option is called
        created: str | None = None,
        created_by: str | None = None,
        omit_history: bool = False,
        platform: str | None = None,
        limits: Limits | None = None,
        pause: bool = True,
        squash: bool = False,
        squash_last: int | None = None,
        max_layers: int | None = None,
        layers: int = 1,
        reuse: str = Reuse.AUTO,
        verify: bool = False,
        deny: Sequence[str] = (),
        **arguments: Unpack[DiffArguments],
    ) -> Self:
        """Return the request of a call of `Store.commit`, checked.

        Raises:
            UsageError: An argument is out of range, or arguments contradict each other.
            FileNotFoundError, NotADirectoryError: A tree is missing, or is not a directory.
        """
        told = engine_options(DiffOptions.of(options, arguments))
        told = replace(told, reuse=choice(Reuse, "reuse", reuse), proves_reuse=verify)
        config_changes = ConfigChanges.of(changes)
        config_changes.check()
        request = cls(
            source=source,
            name=name if elsewhere is not None and elsewhere.publish is not None else name_to_give(name),
            base=base,
            lower=lower,
            platform=None if platform is None else Platform.of_text(platform),
            step=Step.of(author, message, created, created_by, omit_history=omit_history),
            changes=config_changes,
            annotations=annotations,
            family=image_format(format, told.compression, annotations),
            options=told,
            limits=limits or Limits(),
            additions=texts("additions", additions),
            upper=upper,
            pause=pause,
            elsewhere=elsewhere or Elsewhere(),
            merge=_merge(squash=squash, squash_last=squash_last, max_layers=max_layers),
            layers=layers,
            deny=deny,
        )
        if wrong := set(deny) - {SECRETS}:
            raise UsageError(f"deny {min(wrong)[:100]!r}: must be {SECRETS}")
        if check_layers(layers) > 1 and request.merge is not None:
            raise UsageError("layers: cannot be combined with squash, squash_last or max_layers, which merge layers")
        check_source(source, base, lower, told.ids, upper)
        return request


def check_layers(layers: int) -> int:
    """Return how many layers a change shall be written as.

    Raises:
        UsageError: It is out of range.
    """
    if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise UsageError(f"layers {layers!r}: must be 1 to {MOST_LAYERS}")
    return layers


def _merge(*, squash: bool, squash_last: int | None, max_layers: int | None) -> Merge | None:
    """Return which layers become one; None for none."""
    if not squash and squash_last is None and max_layers is None:
        return None
    from ocidiff.image.merge import Merge

    return Merge.of(squash=squash, squash_last=squash_last, max_layers=max_layers)


def image_format(name: str, compression: Compression, annotations: Mapping[str, str]) -> Format:
    """Return the format of that name.

    Raises:
        UsageError: There is no such format, or it cannot have such layers or annotations; a text is not UTF-8.
    """
    if name not in set(Format):
        raise UsageError(f"format {name[:100]!r}: must be {' or '.join(Format)}")
    family = Format(name)
    if family is Format.DOCKER and compression is Compression.ZSTD:
        raise UsageError("format docker: does not support zstd layers; use gzip or none, or the format oci")
    check_text("annotation", *annotations, *annotations.values())
    if family is Format.DOCKER and annotations:
        raise UsageError("format docker: does not support annotations; use labels, or the format oci")
    return family
