"""Commands that judge and search models offline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from shortlist.batch.cli.options import (
    DEFAULT_WORK,
    PATH,
    config_option,
    fit_params_of,
    json_option,
    loaded_tables,
    protocol_option,
    rejects_option,
    table_options,
    tables_of,
)
from shortlist.recsys.settings import Settings


@click.command()
@table_options
@protocol_option
@config_option
@click.option(
    "--cold-start",
    is_flag=True,
    help="Also measure users and items that training has not seen: three times the time.",
)
@json_option
@click.option("--report", "page", type=PATH, help="Write report.html here: one page with plots.")
@rejects_option
def evaluate(**options: Any) -> None:  # noqa: ANN401 - click's own
    """Compares the two stages with the retriever and strong baselines on a hold-out."""
    settings = Settings.from_env(os.environ)
    tables = tables_of(options)

    from shortlist.batch import library
    from shortlist.batch.progress import ProgressReporter, wide_console
    from shortlist.batch.tables import reject_lines
    from shortlist.recsys.evaluation.headline import headline
    from shortlist.recsys.evaluation.report import repeats_table, table

    params, reporter = fit_params_of(settings, options["config"]), ProgressReporter()
    with reporter.stage("read and validate") as progress:
        data = library.read_tables(
            tables,
            options["rejects"],
            max_reject_share=options["max_reject_share"],
            positive_rating=options["positive_rating"],
        )
        n_events, n_rejects = len(data.loaded.dataset.events), sum(data.loaded.rejects.values())
        progress(1.0, f"{n_events} events kept, {n_rejects} rejected")
    for note in (*reject_lines(data.loaded.rejects, options["rejects"]), *data.notes):
        reporter.say(f"  {note}")
    evaluation = library.evaluate(
        data,
        protocol=options["protocol"],
        params=params,
        cold_start=options["cold_start"],
        reporter=reporter,
    )
    wide_console().print(table(evaluation.report))
    repeated = repeats_table(evaluation.report)
    if repeated is not None:
        wide_console().print(repeated)
    click.echo(headline(evaluation.report))
    click.echo(_summary(evaluation.report))
    if options["json_file"] is not None:
        evaluation.write_json(options["json_file"])
    if options["page"] is not None:
        page = options["page"] / "report.html"
        evaluation.write_page(page)
        click.echo(f"the page is {page}")


def _summary(report: dict[str, Any]) -> str:
    recall = ", ".join(f"{name} {value:.3f}" for name, value in report["candidate_recall"].items())
    audit = "; ".join(f"{check['check']}: {check['outcome']}" for check in report["audit"])
    left_out = ", ".join(f"{count} with {reason}" for reason, count in report["left_out"].items())
    seconds, mib = report["seconds_total"], report["peak_memory_bytes"]["process"] / 2**20
    lines = (
        f"users left out: {left_out or 'none'}",
        f"candidate recall: {recall}",
        audit,
        f"{seconds:.0f} s, {mib:.0f} MiB at most",
    )
    return "\n".join(lines)


@click.command()
@table_options
@protocol_option
@config_option
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long to search.",
)
@click.option(
    "--work", type=PATH, default=DEFAULT_WORK, show_default=True, help="Where trials are kept."
)
@click.option("--out", type=PATH, default=Path("shortlist.toml"), show_default=True)
@rejects_option
def tune(**options: Any) -> None:  # noqa: ANN401 - click's own
    """Searches parameters on a window inside training; writes a config for `batch run --config`.

    It starts from the settings, and from --config where one is given.
    """
    settings = Settings.from_env(os.environ)
    tables = tables_of(options)

    from shortlist.batch import config
    from shortlist.batch.progress import ProgressReporter
    from shortlist.batch.tables import reject_lines
    from shortlist.batch.tune import tune as search
    from shortlist.recsys.training.fit import FitParams

    params = fit_params_of(settings, options["config"])
    reporter = ProgressReporter()
    loaded = loaded_tables(tables, options, options["rejects"])
    for note in (*reject_lines(loaded.rejects, options["rejects"]), *loaded.notes):
        reporter.say(f"  {note}")
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
