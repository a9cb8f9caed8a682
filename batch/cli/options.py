"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shortlist.batch.cli.argument_types import STDOUT, JsonFile, Number, OutputFile, OutputFolder
from shortlist.recsys.settings import PROTOCOLS, Settings

if TYPE_CHECKING:
    from shortlist.batch.tables import Tables
    from shortlist.recsys.data import Loaded
    from shortlist.recsys.training.parameters import FitParams

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_WORK = Path(".shortlist/work")
DATA_SETS = ("ml-100k", "ml-1m", "ml-25m", "ml-32m", "synthetic", "shop", "music")
"""What `shortlist data fetch` knows; here, as its module loads Polars."""
DEFAULT_REJECTS = Path(".shortlist/rejects.parquet")


def table_options(command: Command) -> Command:
    """Adds the options that name the tables."""
    for name in ("--users", "--items", "--interactions"):
        command = click.option(
            name, type=click.Path(), help=f"The {name[2:]}: a file, a directory, a glob or s3://."
        )(command)
    command = click.option(
        "--data",
        type=click.Path(),
        help="A mapping file, as `data check` writes it, instead of these.",
    )(command)
    command = click.option(
        "--positive-rating", type=Number(), help="Leave out events that are rated lower."
    )(command)
    share = click.option(
        "--max-reject-share",
        type=Number(0, 1),
        default=0.05,
        show_default=True,
        help="Stop when more rows than this are bad.",
    )
    return share(command)


rejects_option = click.option(
    "--rejects",
    type=OutputFile(makes_folders=True),
    default=DEFAULT_REJECTS,
    show_default=True,
    help="Where rejected rows go, with reasons.",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Parameters of the models, as `tune` writes them.",
)
protocol_option = click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default="last-10pct", show_default=True
)
json_option = click.option(
    "--json",
    "json_file",
    type=JsonFile(),
    is_flag=False,
    flag_value=str(STDOUT),
    metavar="[FILE.json]",
    help="Print JSON and no table; with a file, write it there as well.",
)
work_option = click.option(
    "--work",
    type=OutputFolder(),
    default=DEFAULT_WORK,
    show_default=True,
    help="Where stages and trials are kept.",
)
data_set_option = click.option(
    "--data",
    "data_set",
    type=click.Choice(DATA_SETS),
    default="ml-100k",
    show_default=True,
    help="A data set of `shortlist data fetch`.",
)
demo_directory_option = click.option(
    "--directory",
    type=OutputFolder(),
    default=Path(".demo"),
    show_default=True,
    help="Where its tables, models and lists go.",
)


def example(*lines: str) -> str:
    """The end of a command's help: lines to copy."""
    # After the control character \\b, click does not fill the lines into a paragraph.
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


def fit_params_of(settings: Settings, config: Path | None) -> FitParams:
    """The models' parameters by settings and config file.

    Nothing heavy is imported: a wrong value is refused at once.

    Raises:
        InvalidSettings: the file breaks a rule, see `with_config`.
    """
    from shortlist.batch.config import fit_params, with_config

    params = fit_params(settings)
    return params if config is None else with_config(params, config)


def tables_of(options: Mapping[str, Any]) -> Tables:
    """The tables that `table_options` name; their files and columns are there.

    Nothing heavy is imported before: a misspelt path or column is refused at once.

    Raises:
        click.UsageError: no interactions are named, or both a mapping file and tables.
        InvalidData: a file is not there, lacks a column, or breaks the mapping's rules.
    """
    from shortlist.batch.tables import named, of_mapping

    paths = {name: options[name] for name in ("interactions", "items", "users")}
    if options["data"] is not None:
        given = [f"--{name}" for name, path in paths.items() if path is not None]
        if given:
            raise click.UsageError(f"--data names all tables: leave out {', '.join(given)}")
        return of_mapping(options["data"])
    if paths["interactions"] is None:
        raise click.UsageError(
            "no data: give --interactions PATH, or --data data.toml, "
            "which `shortlist data check FILES --write data.toml` writes"
        )
    return named(**paths)


def loaded_tables(tables: Tables, options: Mapping[str, Any], rejects: Path) -> Loaded:
    """Reads and validates tables; the rejected rows go to a file."""
    from shortlist.recsys import data

    return data.load(
        tables.interactions,
        tables.items,
        tables.users,
        max_reject_share=options["max_reject_share"],
        rejects=rejects,
        positive_rating=options["positive_rating"],
        event_rules=tables.event_rules,
    )
