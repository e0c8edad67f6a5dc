"""`ocidiff inspect`: show the documents of an image, or the files in it."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.names import IMAGE
from ocidiff.cli.options import engine_option, limit_options, platform_option, report_option
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.report import write_report
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.cli.streams import emit
from ocidiff.printable import printable

if TYPE_CHECKING:
    from ocidiff.image.rootfs import ImagePath
    from ocidiff.layer.options import EngineName


@click.command("inspect", epilog="Example: ocidiff inspect app:v2; ocidiff inspect --tree app:v2")
@click.argument("image", metavar="IMAGE", type=IMAGE)
@click.option("--tree", is_flag=True, help="List the files of the image: mode, owner, size, path.")
@report_option
@platform_option
@limit_options
@engine_option
@common("store", "containerd", "address", "namespace", "json")
@pass_settings
def command(
    settings: Settings,
    image: str,
    platform: str | None,
    engine: EngineName | None,
    limits: ocidiff.Limits,
    *,
    tree: bool,
    report: str | None,
) -> None:
    """Show the descriptor, manifest and config of IMAGE as JSON; with --json on one line.

    With --tree list what its layers unpack to, without unpacking them; with --json an object for each path.
    With --report write a page for a browser in place of the documents.
    """
    if tree and report is not None:
        raise click.UsageError("--tree and --report: only one of them can be given")
    name = image.removeprefix(CONTAINERD)
    with settings.open_store(image) as store:
        if report is not None:
            write_report(settings, store, name, report, report, platform=platform, limits=limits, engine=engine)
            return
        if not tree:
            document = store.inspect(name, platform=platform)
            emit(as_json(document) if settings.json else json.dumps(document, indent=2))
            return
        with shown(settings, "inspect") as progress:
            opened = store.rootfs(name, platform=platform, limits=limits, engine=engine, progress=progress)
            with opened as root:
                for path in root.walk():
                    emit(as_json(_document(path)) if settings.json else _line(path))


def _document(path: ImagePath) -> Mapping[str, object]:
    """Return the JSON object that stands for a file."""
    info = path.stat(follow_symlinks=False)
    document = {
        "path": str(path),
        "mode": info.st_mode,
        "uid": info.st_uid,
        "gid": info.st_gid,
        "size": info.st_size,
        "mtimeNs": info.st_mtime_ns,
        "layer": path.layer or None,
    }
    return {**document, "target": path.readlink()} if path.is_symlink() else document


def _line(path: ImagePath) -> str:
    info = path.stat(follow_symlinks=False)
    target = f" -> {printable(path.readlink())}" if path.is_symlink() else ""
    owner = f"{info.st_uid}:{info.st_gid}"
    return f"{stat.filemode(info.st_mode)} {owner:>11} {info.st_size:>12} {printable(str(path))}{target}"
