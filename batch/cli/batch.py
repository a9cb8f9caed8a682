"""Commands that run the scheduled job or one stage."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from shortlist.batch import stages
from shortlist.batch.cli.friendly_errors import FriendlyErrors
from shortlist.batch.cli.options import (
    DEFAULT_WORK,
    PATH,
    config_option,
    fit_params_of,
    table_options,
    tables_of,
)
from shortlist.recsys.settings import Settings


@click.group("batch", cls=FriendlyErrors)
def batch_group() -> None:
    """The scheduled job: learn, evaluate, precompute, publish."""


def _add_job_command(name: str) -> None:
    whole = name == "run"

    @batch_group.command(
        name, help="Runs every stage that is not done." if whole else f"Runs the stage {name}."
    )
    @table_options
    @config_option
    @click.option("--work", type=PATH, default=DEFAULT_WORK, show_default=True)
    @click.option(
        "--events", metavar="PATH", help="Where `events drain` wrote to: more interactions."
    )
    @click.option(
        "--rules",
        metavar="PATH",
        help="Business rules (TOML, also on s3://), put in place at the publication.",
    )
    def command(work: Path, **options: Any) -> None:  # noqa: ANN401
        settings = Settings.from_env(os.environ)
        tables = tables_of(options)

        from shortlist.batch.job import Job, run, run_stage
        from shortlist.batch.progress import ProgressReporter
        from shortlist.batch.rules_file import read_rules
        from shortlist.batch.workspace import alone_in, usable

        job = Job(
            tables.interactions,
            tables.items,
            tables.users,
            work,
            settings,
            ProgressReporter(),
            max_reject_share=options["max_reject_share"],
            config=fit_params_of(settings, options["config"]),
            positive_rating=options["positive_rating"],
            events=options["events"],
            event_rules=tables.event_rules,
            rules=read_rules(options["rules"]),  # now, rather than after a night's training
        )
        with usable(work):
            if whole:
                run(job)
                return
            with alone_in(work):
                run_stage(job, name)


for _name in ("run", *stages.NAMES):
    _add_job_command(_name)


@batch_group.command()
def refresh() -> None:
    """Runs the whole job in a container: the environment configures it, and logs are JSON lines."""
    from shortlist.batch.container import main as run_container

    sys.exit(run_container(os.environ))
