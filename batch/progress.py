"""Shows a running job, stage by stage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from shortlist.batch.repeating import Wait, repeating
from shortlist.recsys.evaluation.resources import Stages

WIDTH = 150
"""Columns that the tables need; a narrower terminal wraps them."""

PRINT_SECONDS = 10
"""Seconds between two lines about a stage, where no terminal shows a bar."""


def wide_console(*, stderr: bool = False) -> Console:
    """A console of at least WIDTH columns.

    A terminal decides for itself.
    """
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)


def silent_reporter() -> ProgressReporter:
    """A reporter that shows nothing."""
    return ProgressReporter(Console(quiet=True))


class ProgressReporter:
    """Shows and times stages; `stages` keeps the seconds of each.

    wait: waits these seconds for a stage's end, and tells whether it came.
    """

    def __init__(
        self,
        console: Console | None = None,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.console = wide_console(stderr=True) if console is None else console
        self.stages = Stages()
        self._wait = wait

    def say(self, text: str) -> None:
        """Prints a line."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[_Advance]:
        """Times a stage, and shows a bar; without a terminal a line every PRINT_SECONDS.

        The value takes (share done, note).
        """
        columns = (
            TextColumn("{task.description:<44}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        bar = Progress(
            *columns,
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,  # a log file would get a line each redraw
        )
        before = self.stages.seconds.get(name, 0.0)
        with self.stages.stage(name), bar:
            advance = _Advance(bar, name)
            with self._printed(name, advance):
                yield advance
        seconds = self.stages.seconds[name] - before
        self.say(f"  {name:<44} {seconds:7.1f} s  {advance.note}")

    @contextmanager
    def _printed(self, name: str, advance: _Advance) -> Iterator[None]:
        """Prints how far a stage is while the body runs, where no bar shows it."""
        if self.console.is_terminal or self.console.quiet:
            yield
            return
        seconds = count(PRINT_SECONDS, PRINT_SECONDS)

        def report() -> None:
            line = f"  {name:<44} {next(seconds):5} s    {advance.shown:>4}  {advance.note}"
            # Not by `say`: a run's log has its own sign of life.
            self.console.print(line.rstrip(), highlight=False, markup=False)

        with repeating(report, PRINT_SECONDS, self._wait):
            yield


class _Advance:
    """Moves one bar."""

    def __init__(self, bar: Progress, name: str) -> None:
        self.shown = ""
        self.note = ""
        self._bar = bar
        self._task = bar.add_task(name, total=None, note="")

    def __call__(self, share: float, note: str) -> None:
        self.shown, self.note = f"{share:.0%}", note
        self._bar.update(self._task, total=1.0, completed=share, note=note)
