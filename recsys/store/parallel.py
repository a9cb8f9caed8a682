"""Runs jobs in daemon threads, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread


def run_all(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    """Runs every job, at most `threads` at a time.

    After a failure no other begins. The threads are daemons: a `ThreadPoolExecutor` finishes its
    queue before the process may end, and a stop would wait for a whole download.

    Raises:
        Exception: the first that a job raised.
    """
    waiting, errors = deque(jobs), list[BaseException]()

    def work() -> None:
        while waiting and not errors:
            try:
                job = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                errors.append(error)

    started = [Thread(target=work, daemon=True) for _ in range(min(threads, len(jobs)))]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if errors:
        raise errors[0]
