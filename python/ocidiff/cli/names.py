"""The names that arguments take, which a shell can complete from what is in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ocidiff.cli.settings import Settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ocidiff.store import Store


class _Name(click.ParamType[str]):
    """A name, completed from the store.

    Args:
        images, containers, files: What it may be the name of.
    """

    name = "name"

    def __init__(self, *, images: bool = False, containers: bool = False, files: bool = False) -> None:
        self._images, self._containers, self._files = images, containers, files

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return the names in the store that begin so; none from a store that cannot be read."""
        from click.shell_completion import CompletionItem

        items = [CompletionItem(incomplete, type="file")] if self._files else []
        try:
            with ctx.ensure_object(Settings).open_store() as store:
                names = self._names(store)
        except Exception:  # noqa: BLE001 - a shell has no use for errors
            names = []
        return [*items, *(CompletionItem(name) for name in names if name.startswith(incomplete))]

    def _names(self, store: Store) -> list[str]:
        images = [image.name for image in store.images() if image.name] if self._images else []
        containers = getattr(store, "containers", ()) if self._containers else ()
        return [*images, *(container.name for container in containers)]


IMAGE: Final = _Name(images=True)
CONTAINER: Final = _Name(containers=True)
CONTAINER_OR_PATH: Final = _Name(containers=True, files=True)
IMAGE_OR_PATH: Final = _Name(images=True, files=True)
ANY_OPERAND: Final = _Name(images=True, containers=True, files=True)
