"""The command that examines this installation."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shortlist.batch.cli.argument_types import PORT
from shortlist.batch.cli.options import example, json_option, work_option
from shortlist.batch.exit_status import DONE, FAILED

if TYPE_CHECKING:
    from shortlist.batch.doctor import Finding

COLOURS = {"ok": "green", "warning": "yellow", "bad": "red"}


@click.command(epilog=example("shortlist doctor", "shortlist doctor --json"))
@click.option(
    "--port", type=PORT, default=8000, show_default=True, help="Where `serve` would listen."
)
@work_option
@json_option
def doctor(port: int, work: Path, json_file: Path | None) -> None:
    """Examines this installation; names a remedy for each fault.

    The exit status is 1 where something is bad, and 0 where all is well or needs a look only.
    """
    from shortlist.batch.cli.output import give_json
    from shortlist.batch.doctor import BAD, examine

    findings = examine(os.environ, port, work)
    if give_json([asdict(finding) for finding in findings], json_file):
        show(findings)
    sys.exit(FAILED if any(finding.state == BAD for finding in findings) else DONE)


def show(findings: list[Finding], *, stderr: bool = False) -> None:
    """Prints a line for each finding, in colours on a terminal."""
    from rich.text import Text

    from shortlist.batch.progress import wide_console

    console = wide_console(stderr=stderr)
    for finding in findings:
        line = Text.assemble(
            (f"{finding.state:<8}", COLOURS[finding.state]), f"{finding.check:<10} {finding.found}"
        )
        if finding.remedy:
            line.append(f": {finding.remedy}")
        console.print(line, soft_wrap=True, highlight=False)
