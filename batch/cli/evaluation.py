"""Commands that judge and search models offline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shortlist.batch.cli.argument_types import Number, OutputFile, OutputFolder
from shortlist.batch.cli.options import (
    config_option,
    example,
    fit_params_of,
    json_option,
    loaded_tables,
    protocol_option,
    rejects_option,
    table_options,
    tables_of,
    work_option,
)
from shortlist.recsys.evaluation.headline import TWO_STAGE
from shortlist.recsys.evaluation.names import COMPARED
from shortlist.recsys.settings import Settings

if TYPE_CHECKING:
    from shortlist.batch.progress import ProgressReporter
    from shortlist.batch.tables import Tables
    from shortlist.recsys.data import Loaded

PAGE = "report.html"
"""The page's name in the folder of `--report`."""

MOST_MINUTES = 525_600
"""A year: longer than any search, and what a clock can count."""


def _methods_of(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """The methods that are named; None for all."""
    if value is None:
        return None
    named = tuple(name.strip() for name in value.split(","))
    unknown = [name for name in named if name not in COMPARED]
    if unknown:
        raise click.BadParameter(
            f"{unknown[0]!r} is no method: the methods are {', '.join(COMPARED)}"
        )
    return named


@click.command(
    epilog=example(
        "shortlist evaluate --data data.toml --report report",
        "shortlist evaluate --interactions interactions.parquet --protocol leave-one-out",
        "shortlist evaluate --data data.toml --methods popularity,ease",
    )
)
@table_options
@protocol_option
@config_option
@click.option(
    "--methods",
    callback=_methods_of,
    metavar="NAME,NAME…",
    help="Fit and report these methods alone: names as in the report, such as popularity,ease.",
)
@click.option(
    "--cold-start",
    is_flag=True,
    help="Also measure users and items that training has not seen: three times the time.",
)
@json_option
@click.option(
    "--report",
    "page",
    type=OutputFolder(),
    help="Write report.html into this folder: one page with plots.",
)
@rejects_option
def evaluate(**options: Any) -> None:  # noqa: ANN401 - click's own
    """Compares the model with strong baselines on a hold-out."""
    settings = Settings.from_env(os.environ)
    if options["cold_start"] and TWO_STAGE not in (options["methods"] or (TWO_STAGE,)):
        raise click.UsageError(
            f"--cold-start measures {TWO_STAGE}: name it in --methods, or leave out --cold-start"
        )
    params = fit_params_of(settings, options["config"])
    tables = tables_of(options)
    page = None if options["page"] is None else options["page"] / PAGE

    from shortlist.batch.cli.output import give_json
    from shortlist.batch.progress import ProgressReporter, wide_console

    reporter = ProgressReporter()
    loaded = _loaded(tables, options, reporter)

    # Only now, as it takes seconds to import: a bad table is refused at once.
    from shortlist.batch import library
    from shortlist.recsys.evaluation.headline import headline
    from shortlist.recsys.evaluation.report import repeats_table, table

    data = library.Data(tables, loaded, options["max_reject_share"], options["positive_rating"])
    evaluation = library.evaluate(
        data,
        protocol=options["protocol"],
        params=params,
        methods=options["methods"],
        cold_start=options["cold_start"],
        workers=settings.workers,
        reporter=reporter,
    )
    if page is not None:
        evaluation.write_page(page)
        click.echo(f"the page is {page}", err=True)
    if not give_json(evaluation.report, options["json_file"]):
        return
    wide_console().print(table(evaluation.report))
    repeated = repeats_table(evaluation.report)
    if repeated is not None:
        wide_console().print(repeated)
    if TWO_STAGE in evaluation.report["methods"]:
        click.echo(headline(evaluation.report))
    click.echo(_summary(evaluation.report))


def _loaded(tables: Tables, options: Mapping[str, Any], reporter: ProgressReporter) -> Loaded:
    """Reads and validates tables; tells what was rejected, and why."""
    from shortlist.batch.tables import reject_lines

    with reporter.stage("read and validate") as progress:
        loaded = loaded_tables(tables, options, options["rejects"])
        n_events, n_rejects = len(loaded.dataset.events), sum(loaded.rejects.values())
        progress(1.0, f"{n_events} events kept, {n_rejects} rejected")
    for note in (*reject_lines(loaded.rejects, options["rejects"]), *loaded.notes):
        reporter.say(f"  {note}")
    return loaded


def _summary(report: dict[str, Any]) -> str:
    recall = report.get("candidate_recall", {})
    shares = ", ".join(f"{name} {value:.3f}" for name, value in recall.items())
    audit = "; ".join(f"{check['check']}: {check['outcome']}" for check in report.get("audit", []))
    left_out = ", ".join(f"{count} with {reason}" for reason, count in report["left_out"].items())
    seconds, mib = report["seconds_total"], report["peak_memory_bytes"]["process"] / 2**20
    lines = (
        f"users left out: {left_out or 'none'}",
        *([f"candidate recall: {shares}", audit] if TWO_STAGE in report["methods"] else []),
        f"{seconds:.0f} s, {mib:.0f} MiB at most",
    )
    return "\n".join(lines)


@click.command(
    epilog=example(
        "shortlist tune --data data.toml --minutes 60",
        "shortlist batch run --data data.toml --config shortlist.toml",
    )
)
@table_options
@protocol_option
@config_option
@click.option(
    "--minutes",
    type=Number(0, MOST_MINUTES, min_open=True),
    default=30.0,
    show_default=True,
    help="How long to search.",
)
@work_option
@click.option(
    "--out",
    type=OutputFile(),
    default=Path("shortlist.toml"),
    show_default=True,
    help="The config file to write.",
)
@rejects_option
def tune(**options: Any) -> None:  # noqa: ANN401 - click's own
    """Searches parameters, and writes those for `batch run`.

    It searches on a window inside training, from the settings, and from --config where one is
    given.
    """
    settings = Settings.from_env(os.environ)
    params = fit_params_of(settings, options["config"])
    tables = tables_of(options)

    from shortlist.batch.progress import ProgressReporter

    reporter = ProgressReporter()
    loaded = _loaded(tables, options, reporter)

    from shortlist.batch import config
    from shortlist.batch.tune import tune as search
    from shortlist.recsys.training.parameters import FitParams

    tuned = search(
        loaded.dataset, options["protocol"], params, options["minutes"], options["work"], reporter
    )
    lines = [
        f"{section}: validation NDCG@10 {best:.4f}, with the settings' own {default:.4f};"
        f" {tuned.trials[section]} trials"
        for section, (default, best) in tuned.scores.items()
    ]
    out = options["out"]
    # Against the defaults, not the settings: the file is all that another machine is given.
    towers, ranker = config.changes(FitParams(), tuned.params)
    config.write(out, towers, ranker, "\n".join(lines))
    for line in lines:
        click.echo(line)
    click.echo(f"written to {out}: use it with `shortlist batch run --config {out}`")
