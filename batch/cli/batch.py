"""Commands that run the scheduled job or one stage."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from shortlist.batch import stages
from shortlist.batch.cli.friendly_errors import FriendlyErrors
from shortlist.batch.cli.options import (
    config_option,
    example,
    fit_params_of,
    table_options,
    tables_of,
    work_option,
)
from shortlist.recsys.settings import Settings

RUN = "run"

ASKS_REDIS = (RUN, "features", "evaluate", stages.PUBLISH)
"""What reads or writes the serving release, or the users who were deleted."""

NEXT = "next: `shortlist studio` shows the lists in a browser, `shortlist serve` answers over HTTP"
"""What the last line of a whole run says."""


@click.group("batch", cls=FriendlyErrors, epilog=example("shortlist batch run --data data.toml"))
def batch_group() -> None:
    """The scheduled job: learn, evaluate, precompute, publish."""


def _add_job_command(name: str) -> None:
    what = "every stage that is not done" if name == RUN else f"the stage {name}"

    @batch_group.command(
        name,
        help=f"Runs {what}.",
        epilog=example(f"shortlist batch {name} --data data.toml"),
    )
    @table_options
    @config_option
    @work_option
    @click.option(
        "--events", type=click.Path(), help="Where `events drain` wrote to: more interactions."
    )
    @click.option(
        "--rules",
        metavar="PATH",
        help="Business rules (TOML, also on s3://), put in place at the publication.",
    )
    def command(work: Path, **options: Any) -> None:  # noqa: ANN401
        _run_stages(name, work, options)


def _run_stages(name: str, work: Path, options: Mapping[str, Any]) -> None:
    """Runs a stage, or all of them, by the options of its command."""
    settings = Settings.from_env(os.environ)
    if name != RUN:
        stages.refuse_missing(name, stages.never_run(work, name))
    params = fit_params_of(settings, options["config"])
    tables = tables_of(options)

    from shortlist.batch.rules_file import read_rules

    rules = read_rules(options["rules"])  # now, rather than after a night's training
    _refuse_early(name, settings)

    from shortlist.batch.job import Job, run, run_stage
    from shortlist.batch.progress import ProgressReporter
    from shortlist.batch.workspace import alone_in, usable

    reporter = ProgressReporter()
    job = Job(
        tables.interactions,
        tables.items,
        tables.users,
        work,
        settings,
        reporter,
        max_reject_share=options["max_reject_share"],
        config=params,
        positive_rating=options["positive_rating"],
        events=options["events"],
        event_rules=tables.event_rules,
        rules=rules,
    )
    with usable(work):
        if name == RUN:
            run(job)
            reporter.say(NEXT)
            return
        with alone_in(work):
            run_stage(job, name)


def _refuse_early(name: str, settings: Settings) -> None:
    """Refuses what would otherwise end a night's training, before anything heavy is imported.

    Raises:
        InvalidInput: the artefacts' place is a file.
        StoreUnavailable: Redis does not answer, and the command needs it.
    """
    from shortlist.recsys.store.artefacts import ensure_usable

    ensure_usable(settings.artefacts)
    if name in ASKS_REDIS:
        from shortlist.batch.batch_store import batch_store
        from shortlist.batch.workspace import LEASE_TIMEOUT_MS

        with batch_store(settings, LEASE_TIMEOUT_MS) as store:
            store.ping()


for _name in (RUN, *stages.NAMES):
    _add_job_command(_name)


@batch_group.command(
    epilog=example(
        "SHORTLIST_DATA=s3://bucket/data.toml SHORTLIST_ARTEFACTS=s3://bucket/releases \\",
        "  shortlist batch refresh",
    )
)
def refresh() -> None:
    """Runs the whole job in a container.

    The environment configures it, and logs are JSON lines.
    """
    from shortlist.batch.container import main as run_container

    sys.exit(run_container(os.environ))
