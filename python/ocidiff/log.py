"""Log records of the package. `logging` is imported on the first record."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

_PACKAGE: Final = "ocidiff"


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


_mutex: Final = Lock()
_listeners: Final[dict[str, Callable[[], logging.Handler]]] = {}
_handlers: Final[dict[str, logging.Handler]] = {}


def listen(make_handler: Callable[[], logging.Handler]) -> None:
    """From now on give the records of all threads to the handler that the call returns, in place of the one before."""
    with _mutex:
        _listeners[_PACKAGE] = make_handler
        if handler := _handlers.pop(_PACKAGE, None):
            import logging

            logging.getLogger(_PACKAGE).removeHandler(handler)


def _logger(name: str) -> logging.Logger:
    import logging

    # No other thread logs before the handler is there.
    with _mutex:
        if make_handler := _listeners.pop(_PACKAGE, None):
            _handlers[_PACKAGE] = make_handler()
            logging.getLogger(_PACKAGE).addHandler(_handlers[_PACKAGE])
    return logging.getLogger(name)
