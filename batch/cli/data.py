"""Commands that check tables and fetch data sets."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from shortlist.batch.cli.argument_types import STDOUT, Number, OutputFile, OutputFolder, Whole
from shortlist.batch.cli.options import DATA_SETS, example, json_option, rejects_option


@click.group(epilog=example("shortlist data check orders.csv products.csv --write data.toml"))
def data() -> None:
    """Your tables, and data sets to try things with."""


@data.command(
    "check",
    epilog=example(
        "shortlist data check orders.csv products.csv --write data.toml",
        "shortlist data check orders.csv --column user_id=CustomerNo --day-first",
    ),
)
@click.argument("files", nargs=-1, type=click.Path(), metavar="FILES...")
@click.option("--interactions", multiple=True, type=click.Path(), help="This is the interactions.")
@click.option("--items", multiple=True, type=click.Path(), help="This is the items.")
@click.option("--users", multiple=True, type=click.Path(), help="This is the users.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=YOURS",
    help="Which column is what, such as user_id=CustomerNo.",
)
@click.option(
    "--day-first/--month-first", "is_day_first", default=None, help="Of dates such as 03/04/2024."
)
@click.option("--zone", help="Of times that do not say theirs, such as Europe/Berlin.")
@click.option("--write", "mapping_file", type=OutputFile(), help="Write the mapping file here.")
@click.option("--force", is_flag=True, help="Overwrite a mapping file that differs.")
@rejects_option
@json_option
def check_tables(
    files: tuple[str, ...],
    mapping_file: Path | None,
    json_file: Path | None,
    force: bool,  # noqa: FBT001 - click's own
    **given: Any,  # noqa: ANN401 - click's own
) -> None:
    """Finds out what FILES are, and writes a mapping for --data.

    FILES are paths, directories, globs or s3:// addresses of interactions, items and users.
    """
    from shortlist.batch.check_report import show
    from shortlist.batch.cli.output import give_json
    from shortlist.batch.progress import wide_console
    from shortlist.recsys.data.check import Given, check
    from shortlist.recsys.data.mapping import write_mapping

    columns = dict(_pair(text) for text in given["columns"])
    tables = {name: given[name] for name in ("interactions", "items", "users")}
    if not files and not any(tables.values()):
        raise click.UsageError("no files: name those of the interactions, the items and the users")
    found = check(
        files,
        Given(tables, columns, given["is_day_first"], given["zone"]),
        _ask_day_first,
        given["rejects"],
    )
    if give_json(found.as_json(), json_file):
        show(found, wide_console())
    if mapping_file is not None:
        write_mapping(mapping_file, found.mapping, _COMMENT, replace=force)
        click.echo(
            f"written to {mapping_file}: next `shortlist redis &`, unless you have a Redis, and "
            f"`shortlist batch run --data {mapping_file}`",
            err=json_file == STDOUT,
        )


_COMMENT = """Which tables there are, which column is what, and what events mean.
Written by `shortlist data check`; docs/data.md says what else may stand here."""


def _pair(text: str) -> tuple[str, str]:
    ours, sign, theirs = text.partition("=")
    if not sign:
        raise click.UsageError(f"--column {text}: write it as user_id=CustomerNo")
    return ours.strip(), theirs.strip()


def _ask_day_first(example: str, column: str) -> bool | None:
    """Asks a person at a terminal; None where there is none."""
    if not sys.stdin.isatty():
        return None
    return click.confirm(f"In {column}, such as {example}: does the day come first?")


@data.command(epilog=example("shortlist data fetch ml-100k --out ml-100k"))
@click.argument("name", metavar="NAME", type=click.Choice(DATA_SETS))
@click.option("--out", type=OutputFolder(), required=True, help="Where the Parquet tables go.")
@click.option("--n-users", type=Whole(1), help="Of a synthetic world.")
@click.option("--n-items", type=Whole(1), help="Of a synthetic world.")
@click.option("--events-per-user", type=Number(1), help="Mean, of a synthetic world.")
@click.option("--seed", type=Whole(0), help="Of a synthetic world.")
def fetch(name: str, out: Path, **size: float | None) -> None:
    """Writes the tables of data set NAME, and their mapping.

    NAME is ml-100k, ml-1m, ml-25m, ml-32m, synthetic, shop or music. The files are
    interactions.parquet, items.parquet, users.parquet and data.toml.
    """
    fetch_data(name, out, {key: value for key, value in size.items() if value is not None})


def fetch_data(name: str, out: Path, size: dict[str, Any]) -> None:
    """Fetches a data set, and prints its origin."""
    from shortlist.recsys.data.datasets import SIZES, default_cache
    from shortlist.recsys.data.datasets import fetch as fetch_tables
    from shortlist.recsys.data.synthetic import WorldSize

    tables = fetch_tables(
        name,
        out,
        cache=default_cache(os.environ),
        announce=lambda text: click.echo(f"  {text}"),
        synthetic=SIZES.get(name, WorldSize)(**size),
    )
    click.echo(
        f"{tables.n_interactions} interactions, {tables.n_items} items and {tables.n_users} users"
        f" in {out} ({tables.source})"
    )
