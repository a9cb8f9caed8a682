"""Opens an expensive object at its first use."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar, cast

T = TypeVar("T")


def lazy(open_: Callable[[], T]) -> T:
    """Returns a proxy for what `open_` returns.

    It is opened when an attribute is first read. An error of `open_` reaches the caller, and the
    next use opens again.
    """
    return cast("T", _Lazy(open_))


class _Lazy:
    def __init__(self, open_: Callable[[], object]) -> None:
        self._open = open_
        self._opened: object | None = None
        self._lock = Lock()  # two requests at once must not open twice

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the opened object has it
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
        return getattr(self._opened, name)
