"""Runs the batch, and sends requests to the handler."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from shortlist.batch import dataset_file, installation, stages
from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.progress import ProgressReporter, wide_console
from shortlist.batch.tables import of_mapping
from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.infra.local.valkey import kept
from shortlist.recsys.data.datasets import MAPPING
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.settings import Settings

ARTEFACTS, VALKEY = "artefacts", "valkey"
"""Folders of the demo's releases and of its Redis."""

SHOWN = 8
"""Items shown of each answer: a screen holds all tables."""

FILMS = ("Star Wars (1977)", "Empire Strikes Back, The (1980)", "Raiders of the Lost Ark (1981)")
"""What the fresh user has seen, where the data set has it; else its most popular items."""


def run(directory: Path, environ: Mapping[str, str]) -> None:
    """Runs the batch, sends requests, prints the answers, and says what to do next.

    The tables are in `directory`/data. An embedded Redis keeps its data in `directory`/valkey.
    """
    with kept(environ, directory / VALKEY) as url:
        job = publish(directory, environ, url)
        _send_requests(dataset_file.load(job.work), job.settings, environ, directory / "lambda.log")
    wide_console().print(what_next(directory, environ), highlight=False, markup=False)


def what_next(directory: Path, environ: Mapping[str, str]) -> str:
    """The commands to go on with, under a heading."""
    steps = []
    artefacts = ""
    if "SHORTLIST_ARTEFACTS" not in environ:
        artefacts = f"SHORTLIST_ARTEFACTS={shlex.quote(str(directory / ARTEFACTS))} "
    if "REDIS_URL" not in environ:
        valkey = shlex.quote(str(directory / VALKEY))
        steps.append((f"shortlist redis --directory {valkey} &", "the lists of this demo"))
    steps += [
        (f"{artefacts}shortlist studio", "why each list is as it is: http://127.0.0.1:8000/"),
        (f"{artefacts}shortlist serve", "the API: http://127.0.0.1:8000/docs"),
        ("shortlist data check orders.csv products.csv --write data.toml", "your own tables"),
        ("shortlist batch run --data data.toml", "your own lists"),
    ]
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{width}}  # {why}" for command, why in steps]
    return "\n".join(["", "what to do next", *lines])


def publish(directory: Path, environ: Mapping[str, str], url: str) -> Job:
    """Runs the batch on the tables in `directory`/data.

    It publishes to the Redis at `url`.
    """
    settings = replace(Settings.from_env(environ), redis_url=url)
    if "SHORTLIST_ARTEFACTS" not in environ:
        settings = replace(settings, artefacts=str((directory / ARTEFACTS).resolve()))
    tables = of_mapping(str(directory / "data" / MAPPING))
    job = Job(
        tables.interactions,
        tables.items,
        tables.users,
        directory / "work",
        settings,
        ProgressReporter(),
        event_rules=tables.event_rules,
    )
    # The embedded Redis may be new: what was published to the one before has gone with it.
    stages.remove_stamp(job.work, stages.PUBLISH)
    run_job(job)
    return job


def _send_requests(
    dataset: Dataset, settings: Settings, environ: Mapping[str, str], log: Path
) -> None:
    console, root = wide_console(), str(installation.IMPORT_ROOT)
    variables = installation.lambda_environ(environ, settings)
    console.print(f"\nthe function's log is in {log}\n", highlight=False)
    # One process for all requests, so that the second of each pair is answered warm.
    with (
        log.open("wb") as file,
        LambdaService(installation.HANDLER, root, variables, log=file.fileno()) as service,
    ):
        for caption, body in _requests(dataset):
            invoked = service.invoke(http_event("POST", "/recommend", {**body, "k": 20}))
            answer = invoked.payload
            if invoked.error is None:
                answer = json.loads(answer["body"])
            console.print(_table(caption, answer, invoked.milliseconds))


def _requests(dataset: Dataset) -> list[tuple[str, dict[str, Any]]]:
    """Captions and bodies: from a list, live, of a session, of an unknown user."""
    user = dataset.user_ids[int(dataset.events.user[0])]
    seen = _liked(dataset)
    titles = ", ".join(dataset.catalogue.titles[dataset.catalogue.ids.index(i)] for i in seen)
    return [
        (f"user {user}, who has a list", {"user_id": user}),
        (f"user {user} again, from a warm process", {"user_id": user}),
        (f"user {user} without the cache", {"user_id": user, "use_cache": False}),
        (f"user {user} without the cache, warm", {"user_id": user, "use_cache": False}),
        (f"a new user who has seen {titles}", {"user_id": "somebody-new", "history": seen}),
        ("a new user of whom nothing is known", {"user_id": "nobody-yet"}),
    ]


def _liked(dataset: Dataset) -> list[str]:
    titles = dataset.catalogue.titles
    known = [dataset.catalogue.ids[titles.index(title)] for title in FILMS if title in titles]
    if known:
        return known
    counts = np.bincount(dataset.events.item)
    most_popular = np.argsort(-counts, kind="stable")[: len(FILMS)].tolist()
    return [dataset.catalogue.ids[row] for row in most_popular]


def _table(caption: str, answer: dict[str, Any], milliseconds: float) -> Table:
    origin = (
        f"source {answer['source']} · {answer['latency_ms']:.1f} ms in the handler, "
        f"{milliseconds:.0f} ms with the runtime"
    )
    table = Table(title=f"{caption}\n{origin}", title_justify="left", width=100)
    table.add_column("#", width=3, no_wrap=True, justify="right")
    table.add_column("title", width=48, no_wrap=True)
    table.add_column("genres", width=30, no_wrap=True)
    table.add_column("score", width=8, no_wrap=True, justify="right")
    for item in answer["recommendations"][:SHOWN]:
        genres, score = ", ".join(item["genres"]), f"{item['score']:.3f}"
        table.add_row(str(item["rank"]), item["title"], genres, score)
    return table
