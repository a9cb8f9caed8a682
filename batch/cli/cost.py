"""The command that estimates the monthly bill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shortlist.batch.cli.argument_types import Number, Whole
from shortlist.batch.cli.options import example, json_option

MOST = 10**12
"""Of users, items and requests: beyond it a figure means nothing."""


@click.command(
    epilog=example(
        "shortlist cost --users 100000 --items 20000 --requests-per-month 3000000",
    )
)
@click.option("--users", type=Whole(1, MOST), required=True, help="Users with a list.")
@click.option("--items", type=Whole(1, MOST), required=True, help="Items of the catalogue.")
@click.option(
    "--requests-per-month",
    "requests",
    type=Whole(0, MOST),
    required=True,
    help="Of the API, all routes.",
)
@click.option(
    "--events-per-user",
    type=Number(0, 1e6, min_open=True),
    default=100.0,
    show_default=True,
    help="In the table of interactions.",
)
@click.option(
    "--refreshes-a-day",
    type=Number(0, 1440, min_open=True),
    default=1.0,
    show_default=True,
    help="How often the batch runs.",
)
@click.option("--on-demand", is_flag=True, help="The batch without Spot.")
@click.option("--region", default="us-east-1", show_default=True, help="Of AWS.")
@json_option
def cost(
    region: str,
    on_demand: bool,  # noqa: FBT001 - click's own
    json_file: Path | None,
    **size: Any,  # noqa: ANN401 - click's own
) -> None:
    """Estimates the monthly bill on AWS, by component.

    It multiplies public list prices by what the template and the code use.
    """
    from shortlist.batch.cli.output import give_json
    from shortlist.batch.cost import Size, estimate, figures, table
    from shortlist.batch.progress import wide_console

    parts = estimate(Size(**size, spot=not on_demand), region)
    if give_json(figures(parts, region), json_file):
        wide_console().print(table(parts, size["requests"], region))
