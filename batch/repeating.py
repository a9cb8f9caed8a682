"""Repeats an action while longer work runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Wait = Callable[[threading.Event, float], bool]
"""Waits so many seconds for an event, and tells whether it came."""


@contextmanager
def repeating(
    action: Callable[[], None], every: float, wait: Wait = threading.Event.wait
) -> Iterator[None]:
    """Calls `action` every so many seconds while the body runs, in a thread of its own."""
    ended = threading.Event()

    def repeat() -> None:
        while not wait(ended, every):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
