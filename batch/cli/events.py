"""Commands on the events that the API took in."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from shortlist.batch.cli.argument_types import OutputPlace
from shortlist.batch.cli.options import example
from shortlist.recsys.settings import Settings

if TYPE_CHECKING:
    from shortlist.batch.drain import Drained


@click.group("events", epilog=example("shortlist events drain --out events"))
def events_group() -> None:
    """What users did since the last training."""


@events_group.command(
    "drain",
    epilog=example(
        "shortlist events drain --out events",
        "shortlist batch run --data data.toml --events events",
    ),
)
@click.option(
    "--out",
    type=OutputPlace(),
    required=True,
    help="Where the Parquet files go, and stay: a directory or s3://.",
)
def events_drain(out: str) -> None:
    """Moves waiting events from Redis into Parquet files.

    `batch run --events` learns from them.
    """
    from uuid import uuid4

    from shortlist.batch.batch_store import batch_store
    from shortlist.batch.drain import drain
    from shortlist.batch.workspace import leased
    from shortlist.recsys.store.event_files import S3EventFiles, open_event_files
    from shortlist.recsys.store.event_log import EventLog

    settings = Settings.from_env(os.environ)
    files = open_event_files(out)
    with ExitStack() as stack:
        if isinstance(files, S3EventFiles):  # a directory has a lock of its own
            stack.enter_context(leased(settings, f"drain-{uuid4().hex[:12]}"))
        store = stack.enter_context(batch_store(settings))
        drained = drain(EventLog(store), files)
    for line in _lines(drained, out):
        click.echo(line)


def _lines(drained: Drained, out: str) -> list[str]:
    events = f"{drained.events} events in {len(drained.files)} files in {out}"
    lines = [f"{events}; {drained.dropped} of deleted users dropped"]
    if drained.letters:
        lines.append(
            f"{drained.unreadable} entries unreadable and {drained.invalid} against a rule,"
            f" put aside in {out}: {', '.join(drained.letters)}"
        )
    if drained.broken:
        lines.append(
            f"files that cannot be read, and whose events are not learnt from, in {out}:"
            f" {', '.join(drained.broken)}"
        )
    return lines
