"""The command that estimates the monthly bill."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--users", type=click.IntRange(1), required=True, help="Users with a list.")
@click.option("--items", type=click.IntRange(1), required=True)
@click.option("--requests-per-month", "requests", type=click.IntRange(0), required=True)
@click.option(
    "--events-per-user",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
)
@click.option(
    "--refreshes-a-day", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True
)
@click.option("--on-demand", is_flag=True, help="The batch without Spot.")
@click.option("--region", default="us-east-1", show_default=True)
def cost(region: str, on_demand: bool, **size: Any) -> None:  # noqa: ANN401, FBT001 - click's own
    """What the service costs a month on AWS, by component, from public list prices."""
    from shortlist.batch.cost import Size, table
    from shortlist.batch.progress import wide_console

    wide_console().print(table(Size(**size, spot=not on_demand), region))
