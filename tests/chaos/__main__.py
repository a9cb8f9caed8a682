"""Runs the chaos campaign from the command line.

`python -m tests.chaos run` runs a campaign; `again NAME` runs the case of one finding again;
`page` rewrites docs/reliability.md from the counts of the last campaign.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click

from tests.chaos import report
from tests.chaos.campaign import SIZES, Task, campaign, run, tasks, total
from tests.chaos.service import backends

WHOLE = {
    "faults": 500,
    "api": 170_000,
    "stored values": 10_000,
    "bundles": 2000,
    "tables": 8000,
    "settings": 30_000,
    "commands": 5000,
}
"""Cases of a whole campaign: 500 scenarios, and more than 200,000 others."""

LOAD = Path(__file__).parents[1] / "benchmarks" / "load.py"


@click.group()
def main() -> None:
    """Attacks the whole service."""


@main.command("run")
@click.option("--seed", default=1, show_default=True)
@click.option("--share", default=1.0, show_default=True, help="Of the whole campaign's cases.")
@click.option("--only", type=click.Choice(list(SIZES)), multiple=True, help="These kinds alone.")
@click.option(
    "--minutes", default=120.0, show_default=True, help="After which no more tasks begin."
)
@click.option("--jobs", default=2, show_default=True, help="Processes.")
@click.option("--load/--no-load", default=False, help="Also the load test, after `make demo`.")
@click.option("--write", is_flag=True, help="Write docs/reliability.md.")
def run_all(
    seed: int,
    share: float,
    only: tuple[str, ...],
    minutes: float,
    jobs: int,
    load: bool,  # noqa: FBT001 - click's own
    write: bool,  # noqa: FBT001 - click's own
) -> None:
    """Runs a campaign; exits with 1 where it has findings."""
    plan = {
        kind: max(1, round(share * count))
        for kind, count in WHOLE.items()
        if not only or kind in only
    }
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        outcomes = total(campaign(tasks(plan, seed), jobs, Path(directory), minutes * 60, _say))
    for kind, outcome in outcomes.items():
        click.echo(f"{kind}: {outcome.cases} cases, {len(outcome.findings)} findings")
    table = _load() if load else ""
    if write:
        options = f"--seed {seed} --share {share:g} --minutes {minutes:g} --jobs {jobs}"
        options += "".join(f" --only {kind}" for kind in only)
        report.save(outcomes, plan, f"python -m tests.chaos run {options} --write", table)
    sys.exit(any(outcome.findings for outcome in outcomes.values()))


@main.command("page")
def write_page() -> None:
    """Writes docs/reliability.md from docs/reports/reliability.json."""
    report.write_page()


@main.command()
@click.argument("name")
def again(name: str) -> None:
    """Repeats a finding: its case, after those before it in its task.

    Exits with 1 where it has findings.
    """
    warnings.simplefilter("error")
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        backends(Path(directory)) as shared,
    ):
        outcome = run(Task.named(name), shared)
    click.echo("\n".join(outcome.findings) or f"{outcome.cases} cases, no findings")
    sys.exit(bool(outcome.findings))


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def _load() -> str:
    command = [sys.executable, str(LOAD)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "120"}
    ).stdout


if __name__ == "__main__":
    main()
