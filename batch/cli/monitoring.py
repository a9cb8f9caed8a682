"""Commands that report on live answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from shortlist.batch.cli.options import json_option
from shortlist.batch.exit_status import DONE, FAILED
from shortlist.recsys.settings import Settings


@click.command()
@click.option("--release", "version", help="Another release than the serving one.")
def skew(version: str | None) -> None:
    """Whether the features of live answers look like those of the training; 1 where they do not."""
    from shortlist.batch.progress import wide_console
    from shortlist.batch.served_skew import history_lengths_note, served_skew, table

    served = served_skew(Settings.from_env(os.environ), version)
    wide_console().print(table(served))
    click.echo(history_lengths_note(served))
    flagged = served.skew.flagged_features
    click.echo(f"skew in {', '.join(flagged)}" if flagged else "no skew")
    sys.exit(FAILED if flagged else DONE)


@click.command("online-report")
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    default=7,
    show_default=True,
    help="Of answers, today included.",
)
@click.option(
    "--events",
    metavar="PATH",
    help="Where `events drain` wrote to, together with what waits in Redis.",
)
@json_option
def online_report(days: int, events: str | None, json_file: Path | None) -> None:
    """How many answers are acted on, by release, source and position, and how a canary does."""
    import time

    from shortlist.batch.online import notes, online, report, tables
    from shortlist.batch.progress import wide_console
    from shortlist.recsys.evaluation.report import write_json

    figures = report(online(Settings.from_env(os.environ), days, events, time.time()))
    for table in tables(figures):
        wide_console().print(table)
    for line in notes(figures) or ["every click is of a counted answer"]:
        click.echo(line)
    if json_file is not None:
        write_json(figures, json_file)
