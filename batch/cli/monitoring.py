"""Commands that report on live answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from shortlist.batch.cli.argument_types import Whole
from shortlist.batch.cli.options import example, json_option
from shortlist.batch.exit_status import DONE, FAILED
from shortlist.recsys.settings import Settings


@click.command(epilog=example("shortlist skew", "shortlist skew --json skew.json"))
@click.option("--release", "version", help="Another release than the serving one.")
@json_option
def skew(version: str | None, json_file: Path | None) -> None:
    """Compares the features of live answers with the training's.

    The exit status is 1 where they do not look alike.
    """
    from shortlist.batch.release_admin import ensure_known, ensure_readable

    settings = Settings.from_env(os.environ)
    if version is None:
        ensure_readable(settings)
    else:
        ensure_known(settings, version)

    from shortlist.batch.cli.output import give_json
    from shortlist.batch.progress import wide_console
    from shortlist.batch.served_skew import figures, history_lengths_note, served_skew, table

    served = served_skew(settings, version)
    flagged = served.skew.flagged_features
    if give_json(figures(served), json_file):
        wide_console().print(table(served))
        click.echo(history_lengths_note(served))
        click.echo(f"skew in {', '.join(flagged)}" if flagged else "no skew")
    sys.exit(FAILED if flagged else DONE)


@click.command(
    "online-report",
    epilog=example("shortlist online-report --days 14 --events s3://bucket/events"),
)
@click.option(
    "--days",
    type=Whole(1, 90),
    default=7,
    show_default=True,
    help="Of answers, today included.",
)
@click.option(
    "--events",
    type=click.Path(),
    help="Where `events drain` wrote to, together with what waits in Redis.",
)
@json_option
def online_report(days: int, events: str | None, json_file: Path | None) -> None:
    """Reports how many answers are acted on.

    By release, source and position; and how a canary does next to the serving release.
    """
    import time

    from shortlist.batch.cli.output import give_json
    from shortlist.batch.online import notes, online, report, tables
    from shortlist.batch.progress import wide_console

    figures = report(online(Settings.from_env(os.environ), days, events, time.time()))
    if not give_json(figures, json_file):
        return
    for table in tables(figures):
        wide_console().print(table)
    for line in notes(figures) or ["every click is of a counted answer"]:
        click.echo(line)
