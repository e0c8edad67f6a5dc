"""Log records of the package. `logging` is imported on the first record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

_PACKAGE: Final = "ocidiff"
_listeners: Final[dict[str, Callable[[], logging.Handler]]] = {}


class Logger:
    """Stands for the logger of that name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def warning(self, text: str, *arguments: object) -> None:
        """See `logging.Logger.warning`."""
        _logger(self._name).warning(text, *arguments, stacklevel=2)

    def debug(self, text: str, *arguments: object) -> None:
        """See `logging.Logger.debug`."""
        _logger(self._name).debug(text, *arguments, stacklevel=2)


def listen(make_handler: Callable[[], logging.Handler]) -> None:
    """Before its first record, give the package's logger the handler that the call returns."""
    _listeners[_PACKAGE] = make_handler


def _logger(name: str) -> logging.Logger:
    import logging

    if make_handler := _listeners.pop(_PACKAGE, None):
        logging.getLogger(_PACKAGE).addHandler(make_handler())
    return logging.getLogger(name)
