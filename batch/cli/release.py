"""Commands that list, try, serve and remove releases."""

from __future__ import annotations

import os

import click

from shortlist.recsys.settings import Settings


@click.group()
def release() -> None:
    """Which release serves."""


@release.command("list")
def release_list() -> None:
    """Lists the published releases, the serving one marked with a star."""
    from shortlist.batch.release_admin import listing

    for line in listing(Settings.from_env(os.environ)):
        click.echo(line)


@release.command()
@click.argument("version")
def show(version: str) -> None:
    """Shows what is known of VERSION."""
    from shortlist.batch.progress import wide_console
    from shortlist.batch.release_admin import show as release_table

    wide_console().print(release_table(Settings.from_env(os.environ), version))


@release.command()
@click.argument("version")
@click.option(
    "--percent", type=click.FloatRange(0, 100), required=True, help="Share of the users; 0 ends it."
)
def canary(version: str, percent: float) -> None:
    """Serves a share of the users from VERSION, always the same ones."""
    from shortlist.batch.release_admin import canary as set_canary

    pointer = set_canary(Settings.from_env(os.environ), version, percent)
    share = "no canary"
    if pointer.canary is not None:
        share = f"{pointer.canary.version} serves {percent:g}% of the users"
    click.echo(f"{pointer.current} is serving, {share}")


@release.command()
@click.argument("version")
@click.option(
    "--users",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="How many stored users are compared.",
)
@click.option("--k", type=click.IntRange(1, 100), default=20, show_default=True)
def shadow(version: str, users: int, k: int) -> None:
    """Compares VERSION with the serving release on the same users; changes nothing."""
    from shortlist.batch.progress import wide_console
    from shortlist.batch.release_admin import shadow as compare
    from shortlist.batch.release_admin import shift_table

    serving, shift = compare(Settings.from_env(os.environ), version, users, k)
    wide_console().print(shift_table(serving, version, shift))


@release.command()
@click.option(
    "--keep", type=click.IntRange(1), required=True, help="How many of the newest releases stay."
)
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


@release.command()
@click.argument("version")
def promote(version: str) -> None:
    """Makes VERSION the serving release."""
    from shortlist.batch.publish import promote as flip_to

    pointer = flip_to(Settings.from_env(os.environ), version)
    click.echo(f"{pointer.current} is serving")


@release.command()
def rollback() -> None:
    """Serves the release before the serving one again."""
    from shortlist.batch.publish import rollback as flip_back

    pointer = flip_back(Settings.from_env(os.environ))
    click.echo(f"{pointer.current} is serving")
