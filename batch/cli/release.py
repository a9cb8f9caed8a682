"""Commands that list, try, serve and remove releases."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from shortlist.batch.cli.argument_types import Number, Whole
from shortlist.batch.cli.options import example, json_option
from shortlist.recsys.settings import Settings

VERSION = "20260801T030000Z-1f2e3d4c"
"""A release's version, for examples."""


@click.group(epilog=example("shortlist release list"))
def release() -> None:
    """Lists, tries, serves and removes releases."""


@release.command(
    "list",
    epilog=example("shortlist release list", "shortlist release list --json | jq '.[].version'"),
)
@json_option
def release_list(json_file: Path | None) -> None:
    """Lists the published releases, the serving one with a star."""
    from shortlist.batch.cli.output import give_json
    from shortlist.batch.release_admin import NO_RELEASE, lines_of, listing

    listed = listing(Settings.from_env(os.environ))
    if not give_json([asdict(each) for each in listed], json_file):
        return
    for line in lines_of(listed):
        click.echo(line)
    if not listed:
        click.echo(f"shortlist: {NO_RELEASE}", err=True)


@release.command(epilog=example(f"shortlist release show {VERSION}"))
@click.argument("version")
@json_option
def show(version: str, json_file: Path | None) -> None:
    """Shows what is known of VERSION."""
    from shortlist.batch.cli.output import give_json
    from shortlist.batch.progress import wide_console
    from shortlist.batch.release_admin import facts_table
    from shortlist.batch.release_admin import show as facts_of

    facts = facts_of(Settings.from_env(os.environ), version)
    if give_json({"version": version, **facts}, json_file):
        wide_console().print(facts_table(version, facts))


@release.command(epilog=example(f"shortlist release canary {VERSION} --percent 5"))
@click.argument("version")
@click.option(
    "--percent", type=Number(0, 100), required=True, help="Share of the users; 0 ends it."
)
def canary(version: str, percent: float) -> None:
    """Serves a share of the users from VERSION.

    They are always the same ones.
    """
    from shortlist.batch.release_admin import canary as set_canary

    pointer = set_canary(Settings.from_env(os.environ), version, percent)
    share = "no canary"
    if pointer.canary is not None:
        share = f"{pointer.canary.version} serves {percent:g}% of the users"
    click.echo(f"{pointer.current} is serving, {share}")


@release.command(epilog=example(f"shortlist release shadow {VERSION} --users 500"))
@click.argument("version")
@click.option(
    "--users",
    type=Whole(1),
    default=200,
    show_default=True,
    help="How many stored users are compared.",
)
@click.option("--k", type=Whole(1, 100), default=20, show_default=True, help="Items of each list.")
@json_option
def shadow(version: str, users: int, k: int, json_file: Path | None) -> None:
    """Compares VERSION with the serving release; changes nothing.

    Both score the same stored users.
    """
    from shortlist.batch.cli.output import give_json
    from shortlist.batch.progress import wide_console
    from shortlist.batch.release_admin import ensure_known

    settings = Settings.from_env(os.environ)
    ensure_known(settings, version)  # before what takes seconds to import

    from shortlist.batch.release_shift import shadow as compare
    from shortlist.batch.release_shift import shift_table

    serving, shift = compare(settings, version, users, k)
    if give_json({"serving": serving, "version": version, **asdict(shift)}, json_file):
        wide_console().print(shift_table(serving, version, shift))


@release.command(epilog=example("shortlist release prune --keep 5"))
@click.option("--keep", type=Whole(1), required=True, help="How many of the newest releases stay.")
def prune(keep: int) -> None:
    """Removes old releases, and what crashed uploads left.

    A release that serves, served before or is a canary is never removed.
    """
    import time

    from shortlist.batch.release_admin import prune as remove_old

    removed = remove_old(Settings.from_env(os.environ), keep, time.time())
    for version in removed:
        click.echo(f"removed {version}")
    click.echo(f"{len(removed)} removed")


@release.command(epilog=example(f"shortlist release promote {VERSION}"))
@click.argument("version")
def promote(version: str) -> None:
    """Makes VERSION the serving release."""
    from shortlist.batch.release_admin import ensure_known

    settings = Settings.from_env(os.environ)
    ensure_known(settings, version)

    from shortlist.batch.publish import promote as flip_to

    pointer = flip_to(settings, version)
    click.echo(f"{pointer.current} is serving")


@release.command(epilog=example("shortlist release rollback"))
def rollback() -> None:
    """Serves the release before the serving one again."""
    from shortlist.batch.release_admin import ensure_readable

    settings = Settings.from_env(os.environ)
    ensure_readable(settings)

    from shortlist.batch.publish import rollback as flip_back

    pointer = flip_back(settings)
    click.echo(f"{pointer.current} is serving")
