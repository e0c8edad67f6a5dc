"""The law: the tar of an upper directory gives the layer that the directory itself gives, byte for byte, in both engines.

Not in the law is what a tar cannot say: sockets, and whose `user.overlay.*` are if there is no `trusted.overlay.*`.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
import strategies

from ocidiff.errors import UnsupportedError
from ocidiff.layer.engine import Engine
from ocidiff.layer.input import UpperTar
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions, Profile
from ocidiff.layer.upper_tar import options_for, private_directory, unpacked
from support import overlays, probes, upper_tars, verbs

pytestmark = pytest.mark.root


@pytest.mark.parametrize("options", overlays.OPTIONS, ids=lambda options: "+".join(options) or "plain")
def test_the_tar_gives_the_bytes_of_the_directory(rust: Engine, pure: Engine, options: tuple[str, ...]) -> None:
    if not overlays.can_mount(*options):
        probes.missing(f"needs overlay mounts with {options}")
    for seed in range(20):
        check(seed, options, [rust, pure] if seed < 6 else [rust])


def check(seed: int, options: tuple[str, ...], engines: list[Engine]) -> None:
    with overlays.sequence(seed, options) as (below, _, layers):
        upper = os.fsdecode(layers.upperdir)
        if any(stat.S_ISSOCK(path.lstat().st_mode) for path in Path(upper).rglob("*")):
            strategies.RAN["out of the law: sockets"] += 1
            return
        data = upper_tars.archive(upper, seed)
        marks = marks_in(data)
        if "userxattr" not in options and "trusted" not in marks and "user" in marks:
            strategies.RAN["out of the law: attributes user.overlay.* alone"] += 1
            return
        for engine in engines:
            for profile in Profile:
                if "redirected" in marks:
                    with pytest.raises(UnsupportedError, match="is not read from a tar"):
                        of_tar(engine, below, data, profile)
                    strategies.RAN["upper tar: refused, since only a mount resolves it"] += 1
                    continue
                where = f"seed {seed}, options {options}, {type(engine).__name__}, {profile}"
                assert of_tar(engine, below, data, profile) == verbs.diff(engine, None, layers, profile=profile)[1], where
                strategies.RAN["upper tar = upper directory"] += 1


def of_tar(engine: Engine, below: Path, data: bytes, profile: Profile) -> bytes:
    with tempfile.TemporaryFile() as file, private_directory(tempfile.gettempdir()) as place:
        file.write(data)
        file.seek(0)
        with unpacked(UpperTar(file), os.fsencode(below), place, engine=engine, monitor=Monitor()) as layers:
            options = options_for(layers, LayerOptions(profile=profile))
            return verbs.diff(engine, None, layers, profile=profile, links_by_device=options.links_by_device)[1]


def marks_in(data: bytes) -> set[str]:
    """Which attributes of overlayfs a tar has."""
    found = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            for key in entry.pax_headers:
                space, _, mark = key.removeprefix("SCHILY.xattr.").partition(".overlay.")
                if mark and not mark.startswith("overlay."):
                    found.add(space)
                # What else an opaque directory or a file with content says of other places has no effect.
                is_opaque = entry.pax_headers.get("SCHILY.xattr.trusted.overlay.opaque") == "y"
                if space == "trusted" and (mark == "metacopy" or (mark == "redirect" and entry.isdir() and not is_opaque)):
                    found.add("redirected")
    return found
