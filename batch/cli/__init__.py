"""Assembles the command line from its groups.

This is the batch's composition root. The modules import what a command needs inside the command,
so that `shortlist --help` does not wait for torch.
"""

from __future__ import annotations

import os

import click

from shortlist.batch.cli import (
    batch,
    cost,
    data,
    doctor,
    evaluation,
    events,
    local,
    monitoring,
    release,
)
from shortlist.batch.cli.friendly_errors import FriendlyErrors
from shortlist.batch.cli.options import example
from shortlist.recsys.settings import misspelt

# torch, FAISS and LightGBM each bring an OpenMP pool, whose idle threads would spin on the cores
# that the next one needs. Each library reads this when it is loaded, which no command has done yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.group(
    cls=FriendlyErrors,
    epilog=example("shortlist demo", "shortlist batch run --data data.toml", "shortlist doctor"),
)
@click.version_option(package_name="shortlist-recommender", prog_name="shortlist")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Shortlist: a serverless recommender.

    Settings come from the environment: docs/settings.md.
    """
    if (ctx.invoked_subcommand, ctx.args[:1]) == ("batch", ["refresh"]):
        return  # it says the same in its log, whose lines are JSON
    for sentence in misspelt(os.environ):
        click.echo(f"shortlist: {sentence}", err=True)


for _command in (
    data.data,
    evaluation.evaluate,
    evaluation.tune,
    batch.batch_group,
    events.events_group,
    release.release,
    monitoring.skew,
    monitoring.online_report,
    cost.cost,
    doctor.doctor,
    local.serve,
    local.studio,
    local.invoke,
    local.demo,
    local.local,
    local.redis,
):
    main.add_command(_command)
