"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shortlist.recsys.settings import PROTOCOLS, Settings

if TYPE_CHECKING:
    from shortlist.recsys.data import Loaded
    from shortlist.recsys.training.fit import FitParams

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
DEFAULT_WORK = Path(".shortlist/work")


def table_options(command: Command) -> Command:
    """Adds the options that name the tables."""
    for name, required in (("--users", False), ("--items", False), ("--interactions", True)):
        command = click.option(
            name,
            required=required,
            metavar="PATH",
            help=f"The {name[2:]}: a path, a glob or s3://.",
        )(command)
    command = click.option(
        "--positive-rating", type=float, help="Leave out events that are rated lower."
    )(command)
    share = click.option(
        "--max-reject-share",
        default=0.05,
        show_default=True,
        help="Stop when more rows than this are bad.",
    )
    return share(command)


config_option = click.option(
    "--config", type=PATH, help="Parameters of the models, as `tune` writes them."
)
protocol_option = click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default="last-10pct", show_default=True
)
json_option = click.option("--json", "json_file", type=PATH, help="Write the report here as well.")
data_set_option = click.option(
    "--data",
    "data_set",
    default="ml-100k",
    show_default=True,
    help="A data set of `shortlist data fetch`.",
)
demo_directory_option = click.option(
    "--directory", type=PATH, default=Path(".demo"), show_default=True
)


def fit_params_of(settings: Settings, config: Path | None) -> FitParams:
    """The models' parameters by settings and config file."""
    from shortlist.batch.config import with_config
    from shortlist.batch.job import fit_params

    params = fit_params(settings)
    return params if config is None else with_config(params, config)


def loaded_tables(
    interactions: str, items: str | None, users: str | None, options: dict[str, Any]
) -> Loaded:
    """Reads and validates the tables that `table_options` name."""
    from shortlist.recsys import data

    return data.load(
        interactions,
        items,
        users,
        max_reject_share=options["max_reject_share"],
        positive_rating=options["positive_rating"],
    )
