"""The command line, and the batch's composition root: the one place that reads the environment and builds what it runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shortlist.batch.exit_status import INVALID, misplaced, outcome
from shortlist.recsys.settings import PROTOCOLS, Settings

# torch, FAISS and LightGBM each bring an OpenMP pool, whose idle threads would spin on the cores
# that the next one needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from shortlist.recsys.training.fit import FitParams

Command = TypeVar("Command", bound=Callable[..., Any])
EXIT_FAILED = 1
DEFAULT_WORK = Path(".shortlist/work")
STAGE_NAMES = (
    "features",
    "train-embeddings",
    "build-index",
    "train-ranker",
    "evaluate",
    "precompute",
    "publish",
)


class FriendlyErrors(click.Group):
    """A group whose errors are a sentence and an exit status, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Runs a command; ends with the status and the sentence of `batch.exit_status` where it fails."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            ended = outcome(error)
            place = misplaced(error)
            if ended is None and place is not None:
                ended = INVALID, place
            if ended is None:  # a bug, whose traceback is wanted
                raise
            click.echo(f"shortlist: {type(error).__name__}: {ended[1]}", err=True)
            sys.exit(ended[0])


@click.group(cls=FriendlyErrors)
def main() -> None:
    """Shortlist: a serverless recommender. Settings come from the environment; see the README."""


def _tables(command: Command) -> Command:
    """The options that name the tables."""
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


def _params(settings: Settings, config: Path | None) -> FitParams:
    """The models' parameters under the settings, and the config file if one is given."""
    from shortlist.batch.config import with_config
    from shortlist.batch.job import fit_params

    return fit_params(settings) if config is None else with_config(fit_params(settings), config)


_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Parameters of the models, as `tune` writes them.",
)


@main.group()
def data() -> None:
    """Data sets to try things with."""


@data.command()
@click.argument("name", type=click.Choice(["ml-100k", "ml-1m", "ml-25m", "ml-32m", "synthetic"]))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Where the Parquet tables go."
)
@click.option("--n-users", type=int, help="Of the synthetic world.")
@click.option("--n-items", type=int, help="Of the synthetic world.")
@click.option("--events-per-user", type=float, help="Mean, of the synthetic world.")
@click.option("--seed", type=int, help="Of the synthetic world.")
def fetch(name: str, out: Path, **size: float | None) -> None:
    """Writes interactions.parquet, items.parquet and users.parquet of the data set NAME."""
    fetch_data(name, out, {key: value for key, value in size.items() if value is not None})


def fetch_data(name: str, out: Path, size: dict[str, Any]) -> None:
    """Fetches a data set, and says where it came from."""
    from shortlist.recsys.data.datasets import default_cache
    from shortlist.recsys.data.datasets import fetch as fetch_tables
    from shortlist.recsys.data.synthetic import WorldSize

    cache = default_cache(os.environ)
    found = fetch_tables(
        name,
        out,
        cache=cache,
        announce=lambda text: click.echo(f"  {text}"),
        synthetic=WorldSize(**size),
    )
    click.echo(
        f"{found.n_interactions} interactions, {found.n_items} items and {found.n_users} users in {out} ({found.source})"
    )


@main.command()
@_tables
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="last-10pct", show_default=True)
@_config
@click.option(
    "--cold-start",
    is_flag=True,
    help="Also measure users and items that training has not seen: thrice the time.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the report here as well."
)
@click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path),
    help="Write report.html here: one page with plots.",
)
def evaluate(interactions: str, items: str | None, users: str | None, **options: Any) -> None:  # noqa: ANN401 - click's own
    """Compares the two stages with the retriever and strong baselines on a hold-out."""
    from shortlist.batch import offline_evaluation
    from shortlist.batch.cold_start import cold_start
    from shortlist.batch.progress import ProgressReporter, wide_console
    from shortlist.recsys import data as tables
    from shortlist.recsys.evaluation.report import table, write_json

    params = _params(Settings.from_env(os.environ), options["config"])
    reporter = ProgressReporter()
    with reporter.stage("read and validate") as progress:
        loaded = tables.load(
            interactions,
            items,
            users,
            max_reject_share=options["max_reject_share"],
            positive_rating=options["positive_rating"],
        )
        progress(
            1.0,
            f"{len(loaded.dataset.events)} events kept, {sum(loaded.rejects.values())} rejected",
        )
    for note in loaded.notes:
        reporter.say(f"  {note}")
    report = offline_evaluation.run(loaded.dataset, options["protocol"], params, reporter)
    if options["cold_start"]:
        report |= (
            cold_start(loaded.dataset, options["protocol"], params, reporter)
            | reporter.stages.summary()
        )
    report["data"]["rejects"] = loaded.rejects
    wide_console().print(table(report))
    click.echo(_summary(report))
    if options["json_file"] is not None:
        write_json(report, options["json_file"])
    if options["page"] is not None:
        from shortlist.recsys.evaluation.page import write_page

        write_page(report, options["page"] / "report.html")
        click.echo(f"the page is {options['page'] / 'report.html'}")


def _summary(report: dict[str, Any]) -> str:
    recall = ", ".join(f"{name} {value:.3f}" for name, value in report["candidate_recall"].items())
    memory = report["peak_memory_bytes"]["process"] / 2**20
    audit = "; ".join(f"{check['check']}: {check['outcome']}" for check in report["audit"])
    return f"candidate recall: {recall}\n{audit}\n{report['seconds_total']:.0f} s, {memory:.0f} MiB at most"


@main.command()
@_tables
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="last-10pct", show_default=True)
@_config
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long to search.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=DEFAULT_WORK,
    show_default=True,
    help="Where trials are kept.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("shortlist.toml"), show_default=True
)
def tune(interactions: str, items: str | None, users: str | None, **options: Any) -> None:  # noqa: ANN401 - click's own
    """Searches parameters on a validation window inside training, and writes a config for `batch run --config`.

    It starts from the settings, and from --config where one is given.
    """
    from shortlist.batch import config
    from shortlist.batch.progress import ProgressReporter
    from shortlist.batch.tune import tune as search
    from shortlist.recsys import data as tables
    from shortlist.recsys.training.fit import FitParams

    params = _params(Settings.from_env(os.environ), options["config"])
    reporter = ProgressReporter()
    loaded = tables.load(
        interactions,
        items,
        users,
        max_reject_share=options["max_reject_share"],
        positive_rating=options["positive_rating"],
    )
    found = search(
        loaded.dataset, options["protocol"], params, options["minutes"], options["work"], reporter
    )
    lines = [
        f"{what}: validation NDCG@10 {after:.4f}, with the settings' own {before:.4f}; {found.trials[what]} trials"
        for what, (before, after) in found.scores.items()
    ]
    config.write(options["out"], *config.changes(FitParams(), found.params), "\n".join(lines))
    click.echo(
        "\n".join(
            [
                *lines,
                f"written to {options['out']}: use it with `shortlist batch run --config {options['out']}`",
            ]
        )
    )


@main.group("batch", cls=FriendlyErrors)
def batch_group() -> None:
    """The scheduled job: learn, evaluate, precompute, publish."""


def _job_command(name: str) -> None:
    @batch_group.command(
        name,
        help="Runs every stage that is not done." if name == "run" else f"Runs the stage {name}.",
    )
    @_tables
    @_config
    @click.option(
        "--work", type=click.Path(path_type=Path), default=DEFAULT_WORK, show_default=True
    )
    @click.option(
        "--events", metavar="PATH", help="Where `events drain` wrote to: more interactions."
    )
    def command(
        interactions: str,
        items: str | None,
        users: str | None,
        work: Path,
        **options: Any,  # noqa: ANN401
    ) -> None:
        from shortlist.batch.job import Job, run, run_stage
        from shortlist.batch.progress import ProgressReporter
        from shortlist.batch.workspace import alone_in, usable

        settings = Settings.from_env(os.environ)
        params = _params(settings, options["config"])
        told = (options["max_reject_share"], params, options["positive_rating"], options["events"])
        job = Job(interactions, items, users, work, settings, ProgressReporter(), *told)
        with usable(work):
            if name == "run":
                run(job)
                return
            with alone_in(work):
                run_stage(job, name)


for _name in ("run", *STAGE_NAMES):
    _job_command(_name)


@batch_group.command()
def refresh() -> None:
    """The whole job as a container runs it: all of it told by the environment, JSON lines, exit statuses to act on."""
    from shortlist.batch.container import main as run_container

    sys.exit(run_container(os.environ))


@main.group("events")
def events_group() -> None:
    """What users did since the last training, as the API took it in."""


@events_group.command("drain")
@click.option(
    "--out",
    metavar="PATH",
    required=True,
    help="Where the Parquet files go, and stay: a directory or s3://.",
)
def events_drain(out: str) -> None:
    """Moves the events that wait in Redis into Parquet files, for `batch run --events`."""
    from uuid import uuid4

    from shortlist.batch.drain import drain
    from shortlist.batch.publish import BATCH_TIMEOUT_MS
    from shortlist.batch.workspace import leased
    from shortlist.recsys.store.event_files import S3EventFiles, open_event_files
    from shortlist.recsys.store.event_log import EventLog
    from shortlist.recsys.store.redis import open_store

    settings = Settings.from_env(os.environ)
    files = open_event_files(out)
    with ExitStack() as stack:
        if isinstance(files, S3EventFiles):  # a directory has a lock of its own
            stack.enter_context(leased(settings, f"drain-{uuid4().hex[:12]}"))
        store = stack.enter_context(
            closing(open_store(settings.redis_url, settings.namespace, BATCH_TIMEOUT_MS))
        )
        told = drain(EventLog(store), files)
    click.echo(
        f"{told.events} events in {len(told.files)} files in {out}; {told.dropped} of deleted users dropped"
    )
    if told.letters:
        where = ", ".join(told.letters)
        click.echo(
            f"{told.unreadable} entries unreadable and {told.invalid} against a rule, put aside in {out}: {where}"
        )
    if told.broken:
        click.echo(
            f"files that cannot be read, and whose events are not learnt from, in {out}: {', '.join(told.broken)}"
        )


@main.group()
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
    from shortlist.batch.release_admin import show as table_of

    wide_console().print(table_of(Settings.from_env(os.environ), version))


@release.command()
@click.argument("version")
@click.option(
    "--percent", type=click.FloatRange(0, 100), required=True, help="Share of the users; 0 ends it."
)
def canary(version: str, percent: float) -> None:
    """Serves a share of the users from VERSION, always the same ones."""
    from shortlist.batch.release_admin import canary as try_on

    pointer = try_on(Settings.from_env(os.environ), version, percent)
    share = (
        "no canary"
        if pointer.canary is None
        else f"{pointer.canary.version} serves {percent:g}% of the users"
    )
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

    serving, found = compare(Settings.from_env(os.environ), version, users, k)
    wide_console().print(shift_table(serving, version, found))


@release.command()
@click.option(
    "--keep", type=click.IntRange(1), required=True, help="How many of the newest releases stay."
)
def prune(keep: int) -> None:
    """Removes old releases, never one that serves, served before or is a canary, and what crashed uploads left."""
    import time

    from shortlist.batch.release_admin import prune as remove_old

    removed = remove_old(Settings.from_env(os.environ), keep, time.time())
    click.echo(
        "\n".join([*(f"removed {version}" for version in removed), f"{len(removed)} removed"])
    )


@release.command()
@click.argument("version")
def promote(version: str) -> None:
    """Makes VERSION the serving release."""
    from shortlist.batch.publish import promote as flip_to

    click.echo(f"{flip_to(Settings.from_env(os.environ), version).current} is serving")


@release.command()
def rollback() -> None:
    """Makes the release before the serving one."""
    from shortlist.batch.publish import rollback as flip_back

    click.echo(f"{flip_back(Settings.from_env(os.environ)).current} is serving")


@main.command("skew")
@click.option("--release", "version", help="Another release than the serving one.")
def skew_command(version: str | None) -> None:
    """Whether the features of live answers look like those of the training; 1 where they do not."""
    from shortlist.batch.progress import wide_console
    from shortlist.batch.served_skew import served_skew, table, who_asks

    served = served_skew(Settings.from_env(os.environ), version)
    wide_console().print(table(served))
    click.echo(who_asks(served))
    flagged = served.skew.flagged_features
    click.echo(f"skew in {', '.join(flagged)}" if flagged else "no skew")
    sys.exit(EXIT_FAILED if flagged else 0)


@main.command("online-report")
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    default=7,
    show_default=True,
    help="Of answers, today included.",
)
@click.option(
    "--events", metavar="PATH", help="Where `events drain` wrote to, beside what waits in Redis."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the report here as well."
)
def online_report(days: int, events: str | None, json_file: Path | None) -> None:
    """How many answers are acted on, by release, source and position, and how a canary does."""
    import time

    from shortlist.batch.online import notes, online, report, tables
    from shortlist.batch.progress import wide_console
    from shortlist.recsys.evaluation.report import write_json

    told = report(online(Settings.from_env(os.environ), days, events, time.time()))
    for table in tables(told):
        wide_console().print(table)
    click.echo("\n".join(notes(told) or ["every click is of a counted answer"]))
    if json_file is not None:
        write_json(told, json_file)


@main.command()
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


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
def serve(host: str, port: int) -> None:
    """Serves the API under uvicorn; the documentation is at /docs."""
    from importlib import import_module

    import_module("shortlist.lambda_handler.server").run(
        host, port
    )  # by its name: the batch does not know the API


@main.command()
@click.option("--user", required=True, help="The user's id.")
@click.option("--k", default=20, show_default=True)
@click.option("--history", help="Item ids, oldest first, with commas between: makes it a session.")
@click.option("--no-cache", is_flag=True, help="Compute live.")
def invoke(user: str, k: int, history: str | None, no_cache: bool) -> None:  # noqa: FBT001 - click's own
    """Asks the Lambda handler under the real Lambda runtime client, and prints its answer."""
    from shortlist.infra.local.runtime_api import LambdaService, http_event

    body: dict[str, Any] = {"user_id": user, "k": k, "use_cache": not no_cache}
    if history is not None:
        body["history"] = [part.strip() for part in history.split(",") if part.strip()]
    Settings.from_env(os.environ)
    with LambdaService(
        "shortlist.lambda_handler.handler.handler", str(Path(__file__).parents[2]), os.environ
    ) as service:
        invoked = service.invoke(http_event("POST", "/recommend", body))
    payload = invoked.payload
    answer = json.loads(payload["body"]) if invoked.error is None else payload
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if invoked.error is not None or payload["statusCode"] != 200:  # noqa: PLR2004 - HTTP's OK
        sys.exit(EXIT_FAILED)


@main.command()
@click.option(
    "--data",
    "data_set",
    default="ml-100k",
    show_default=True,
    help="A data set of `shortlist data fetch`.",
)
@click.option(
    "--directory", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True
)
def demo(data_set: str, directory: Path) -> None:
    """From a data set to answers of the Lambda handler: fetch, the whole batch, four kinds of request."""
    from shortlist.batch.demo import run

    fetch_data(data_set, directory / "data", {})
    run(directory, os.environ)


@main.command()
@click.option(
    "--data",
    "data_set",
    default="ml-100k",
    show_default=True,
    help="A data set of `shortlist data fetch`.",
)
@click.option(
    "--directory", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True
)
@click.option(
    "--package",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A built package, not the source.",
)
@click.option("--port", default=3000, show_default=True)
def local(data_set: str, directory: Path, package: Path | None, port: int) -> None:
    """The API as it is deployed, on this machine: HTTP events for the handler under the real Lambda runtime client."""
    import threading

    from shortlist.batch.local import run

    _end_by_signals()
    fetch_data(data_set, directory / "data", {})

    def until(address: str) -> None:
        click.echo(f"serving at {address}: try {address}/docs; stop with Ctrl-C")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()

    run(directory, package, port, os.environ, until)


def _end_by_signals() -> None:
    """SIGTERM ends the command as Ctrl-C does, in the background too, so that the servers it has started end with it."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@main.command()
@click.option("--port", default=6379, show_default=True)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path(".shortlist/valkey"),
    show_default=True,
)
def redis(port: int, directory: Path) -> None:
    """Runs an embedded Valkey on loopback until interrupted, for a laptop without Redis."""
    from shortlist.infra.local.valkey import serve_forever

    _end_by_signals()
    click.echo(f"redis://localhost:{port} (data in {directory}); stop with Ctrl-C")
    serve_forever(port, directory)


if __name__ == "__main__":
    main()
