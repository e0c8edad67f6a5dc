"""The keyword arguments of `Store.commit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from ocidiff.layer.arguments import DiffArguments, Texts
from ocidiff.oci.media_type import Format

if TYPE_CHECKING:
    from ocidiff.image.changes import ConfigChanges
    from ocidiff.layer.input import UpperTar
    from ocidiff.layer.limits import Limits
    from ocidiff.layer.operand import Tree


FormatName: TypeAlias = Format | Literal["oci", "docker"]


class CommitArguments(DiffArguments, total=False):
    """The options that `Store.commit` takes by name: these, and the fields of `DiffOptions`.

    Attributes:
        upper: Changes of a container that are not in its tree on disk, such as those of gVisor; they become a second layer.
        base: Image of this store to build on; None or `scratch` for none. A container has its own.
        lower: Directory with the tree of the base, or `index:` and the path of an index of it; None to unpack the base for
            the time of the call. An index of layers other than those of the base is refused.
        author: Author in the history; None for the author of the base.
        message: Comment in the history.
        changes: Dockerfile instructions as in `docker commit --change`, or `ConfigChanges`.
        additions: Files and directories of the host to add to the image in a layer of their own, each `SRC:DEST`. They
            belong to root, and replace what the tree has there.
        annotations: Annotations of the manifest, added to those of the base.
        format: `oci` or `docker`: the media types of the manifest, the configuration and the layers.
        created: RFC 3339 time; None for the source date epoch, or now.
        created_by: Command in the history; None for what the container runs, or one of the base would.
        omit_history: Leave out the history of the base, and this step.
        platform: `OS/ARCH[/VARIANT]`: selects from a base for several platforms, or is the platform of an image without a
            base; None for this machine.
        limits: Limits of the layers of the base if it is unpacked; None for the defaults.
        pause: Pause a running container while its tree is read. It resumes even if this process is killed.
        squash: Make all layers one, those of the base too.
        squash_last: Make so many of the newest layers one, the layer of the change included; all if there are fewer.
        max_layers: If the image would have more layers, make the newest ones one.
        layers: Write the change as so many layers by path, at most: 1 to 16. A later commit with the same number writes only
            those that it touches.
        reuse: `auto` to copy compressed segments of older layers in the store, or `never`. The bytes are the same.
        verify: Decompress and compare every segment that is copied, and not only one in 64.
        deny: `secrets` to fail if the new layers hold private keys, tokens or passwords; see docs/how-to/check-an-image.md.
    """

    upper: UpperTar | None
    base: str | None
    lower: Tree | None
    author: str | None
    message: str | None
    changes: ConfigChanges | str | Texts
    additions: Texts
    annotations: Mapping[str, str]
    format: FormatName
    created: str | None
    created_by: str | None
    omit_history: bool
    platform: str | None
    limits: Limits | None
    pause: bool
    squash: bool
    squash_last: int | None
    max_layers: int | None
    layers: int
    reuse: str
    verify: bool
    deny: Texts
