"""The scheduled job as a recipe: what each stage reads, what it writes, and in which order they run.

Stages meet only in the work directory. A stage that finished is not run again while neither its
input nor its settings have changed, so a job that was interrupted resumes at the first stage that
is missing.

Three folds keep it point in time. Fold 0 ends where the ranker's labels for the report start, fold
1 where the reported hold-out starts, fold 2 holds everything and is what serves. The report is on
fold 1 with a ranker that learnt on fold 0. The released ranker has as many trees, and learns from
the same groups and those of fold 1 with the hold-out as labels. Where validation shows no gain of
the ranker, both are served in the retriever's order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from shortlist.batch import (
    dataset_file,
    gate,
    offline_evaluation,
    precompute,
    publish,
    release_drift,
)
from shortlist.batch.audit import audit
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.workspace import alone_in, leased, local_run
from shortlist.recsys import data
from shortlist.recsys.data.staging import marks
from shortlist.recsys.errors import InvalidInput, ReleaseRefused
from shortlist.recsys.evaluation.page import write_page
from shortlist.recsys.evaluation.report import table as report_table
from shortlist.recsys.evaluation.report import write_json
from shortlist.recsys.models import bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.index import measure
from shortlist.recsys.models.interactions import Events, Int64, states_at
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.models.ranker import ranker_from
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.settings import HoldoutProtocol, Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.event_files import pattern_of
from shortlist.recsys.store.lease import Lease
from shortlist.recsys.store.redis import open_store
from shortlist.recsys.store.watermark import position_at
from shortlist.recsys.training.fit import (
    FitParams,
    assemble,
    groups_after,
    groups_inside,
    horizon_of,
    item_table_of,
    past_before_labels,
    ranker_of,
    refit_ranker,
    towers_of,
    validation_inside,
)
from shortlist.recsys.training.lambdamart import FittedRanker, RankerParams
from shortlist.recsys.training.split import before, cuts
from shortlist.recsys.training.two_tower import TowerParams

CODE_VERSION = "0.1.0"
RECIPE = 2
"""Changes when stages make something else of the same input: what an older recipe left in a work directory is made again."""

FOLDS = (0, 1, 2)
ASSEMBLED = "assemble"
"""Marks a bundle that was assembled, within the stage precompute."""

PUBLISH = "publish"

WATERMARK = "watermark.txt"
"""In the work directory: the position in the stream of events up to which the run has learnt."""

FIRST_CLOCK_TIME = 100_000_000
"""1973: times below are taken for sequence numbers."""

TABLE_LAG_SECONDS = 86_400
"""How late a table may have what came over HTTP, where events are not drained: until then they count as newer than it."""

SERVED = "served.json"
"""Which release served when the run began."""

INDEX_QUERIES = 500
"""Users whose searches measure the recall of the index."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: where its tables are, where it works, and how."""

    interactions: str
    items: str | None
    users: str | None
    work: Path
    settings: Settings
    reporter: ProgressReporter
    max_reject_share: float = 0.05
    config: FitParams | None = None
    """The models' parameters where a config file changes those of the settings."""
    positive_rating: float | None = None
    """Events rated or weighted below are left out; None keeps all."""
    events: str | None = None
    """Where `shortlist events drain` put what came over HTTP: a directory or s3://bucket/prefix."""
    lease: Lease | None = None
    """Of the run; None takes one for the publication alone."""

    @property
    def protocol(self) -> HoldoutProtocol:
        """How the report's hold-out is cut."""
        return self.settings.protocol

    @property
    def params(self) -> FitParams:
        """The models' parameters."""
        return fit_params(self.settings) if self.config is None else self.config

    def fold(self, number: int) -> Path:
        """The directory of a fold."""
        return self.work / f"fold-{number}"


def fit_params(settings: Settings) -> FitParams:
    """The models' parameters under these settings."""
    return FitParams(
        towers=TowerParams(dimension=settings.embedding_dim, loss=settings.loss),
        ranker=RankerParams(estimators=settings.lgbm_n_estimators),
        n_candidates=settings.top_k_candidates,
        n_lists=settings.faiss_n_lists,
        n_probe=settings.faiss_n_probe,
        exploration_share=settings.exploration_share,
        threads=settings.threads,
    )


def past_of(dataset: Dataset, protocol: HoldoutProtocol, params: FitParams, fold: int) -> Events:
    """The events that a fold may know."""
    if fold == 2:  # noqa: PLR2004 - the last of FOLDS
        return dataset.events
    reported = before(dataset.events, cuts(dataset.events, protocol))
    return reported if fold == 1 else past_before_labels(reported, protocol, params)


def latest_known(times: Int64, started: float) -> float:
    """Until when a table can have what came over HTTP: its own latest time that is not in the future.

    times: int64[n] of the table; started: unix seconds at which it was read, which stands in where
    the times are no clock's.
    """
    past = times[times <= started]
    latest = int(past.max()) if len(past) else 0
    return latest if latest >= FIRST_CLOCK_TIME else started


def features(job: Job) -> None:
    """Reads and validates the tables; counts neighbours and fills the item table of each fold."""
    job.work.mkdir(parents=True, exist_ok=True)
    _note_serving(job)
    with job.reporter.stage("read and validate") as progress:
        started = time.time()
        drained = publish.drained_up_to(
            job.settings
        )  # before the files are read, or they might lack some of it
        loaded = data.load(
            job.interactions,
            job.items,
            job.users,
            max_reject_share=job.max_reject_share,
            rejects=job.work / "rejects.parquet",
            positive_rating=job.positive_rating,
            events=job.events,
            is_forgotten=publish.deleted_users(job.settings),
        )
        dataset = loaded.dataset
        progress(1.0, _read(loaded))
        (job.work / "rejects.json").write_text(json.dumps(loaded.rejects))
        offline_evaluation.truth_after(
            dataset, cuts(dataset.events, job.protocol)
        )  # nothing to learn from is told at once
        dataset_file.save(job.work, dataset)
        in_table = position_at(latest_known(dataset.events.time, started) - TABLE_LAG_SECONDS)
        (job.work / WATERMARK).write_text(str(in_table if job.events is None else drained))
    for note in loaded.notes:
        job.reporter.say(f"  {note}")
    for fold in FOLDS:
        with job.reporter.stage(f"features, fold {fold}"):
            job.fold(fold).mkdir(exist_ok=True)
            bundle.save_table(
                job.fold(fold),
                item_table_of(dataset, past_of(dataset, job.protocol, job.params, fold)),
            )


def _read(loaded: data.Loaded) -> str:
    """What a load kept and rejected, drained events apart from the rows of the tables."""
    drained = sum(
        count for reason, count in loaded.rejects.items() if reason.startswith("events: ")
    )
    told = f"{len(loaded.dataset.events)} events kept, {sum(loaded.rejects.values()) - drained} rows rejected"
    return (
        f"{told}; of {loaded.n_drained} drained events {drained} rejected"
        if loaded.n_drained
        else told
    )


def train_embeddings(job: Job) -> None:
    """Trains the towers of each fold; the first tells for how long, and the others learn from all that they may know."""
    dataset = dataset_file.load(job.work)
    epochs = None
    for fold in FOLDS:
        with job.reporter.stage(f"train towers, fold {fold}") as progress:
            past = past_of(dataset, job.protocol, job.params, fold)
            trained = towers_of(dataset, past, job.params, progress, epochs)
            epochs = trained.epochs
            bundle.save_towers(job.fold(fold), trained.towers)
            (job.fold(fold) / "towers.json").write_text(
                json.dumps({"events": trained.learnt_from, "rounds": trained.rounds})
            )


def build_index(job: Job) -> None:
    """Builds the index that will serve, and measures its recall."""
    dataset = dataset_file.load(job.work)
    with job.reporter.stage("build the index") as progress:
        model = load_fold(job, 2)
        offsets = dataset.events.offsets()
        chosen = np.random.default_rng(0).permutation(dataset.events.n_users)[:INDEX_QUERIES]
        states = states_at(
            dataset.events, offsets[:-1][chosen], offsets[1:][chosen], dataset.attributes[chosen]
        )
        queries = user_vectors(model.towers, states)
        stats = measure(model.index, model.towers.items, queries, job.settings.top_k_candidates)
        told = {
            "kind": stats.kind,
            "n_items": stats.n_items,
            "recall": stats.recall,
            "recall_at": stats.recall_at,
        }
        (job.work / "index.json").write_text(json.dumps(told))
        progress(1.0, f"{stats.kind}, recall@{stats.recall_at} {stats.recall:.4f}")


def train_ranker(job: Job) -> None:
    """Trains the ranker to report on, and again for the release: as many trees, from the reported hold-out's labels too."""
    dataset = dataset_file.load(job.work)
    with job.reporter.stage("train the ranker to report on") as progress:
        past = past_of(dataset, job.protocol, job.params, 1)
        behind = load_fold(job, 0)
        groups = groups_inside(behind, dataset, past, job.protocol, job.params)
        judged = validation_inside(behind, dataset, past, job.protocol, job.params)
        reported = ranker_of(groups, judged, job.params)
        _save_ranker(job.fold(1), reported)
        progress(1.0, reported.note)
    with job.reporter.stage("train the ranker to release") as progress:
        first, horizon = cuts(dataset.events, job.protocol), horizon_of(job.protocol)
        later = groups_after(load_fold(job, 1), dataset, dataset.events, first, horizon, job.params)
        released = refit_ranker(reported, [groups, later], job.params)
        _save_ranker(job.fold(2), released)
        progress(1.0, released.note)


def evaluate(job: Job) -> None:
    """Reports on fold 1, and refuses a release that is no better than popularity, or worse than the serving one.

    Raises:
        ReleaseRefused: the two stages do not beat popularity, or fall too far below the serving
            release.
    """
    dataset = dataset_file.load(job.work)
    model = load_fold(job, 1, ranked=True)
    cut = cuts(dataset.events, job.protocol)
    truth = offline_evaluation.truth_after(dataset, cut)
    past = past_of(dataset, job.protocol, job.params, 1)
    trained, rounds = (
        json.loads((job.fold(fold) / "towers.json").read_text())[told]
        for fold, told in ((1, "events"), (0, "rounds"))
    )
    ranker, released = (json.loads((job.fold(fold) / "ranker.json").read_text()) for fold in (1, 2))
    with job.reporter.stage("leak audit"):
        checks = audit(dataset, cut, past, model, truth, {"towers": trained})
    report = offline_evaluation.compare(
        model, past, truth, dataset.catalogue, job.protocol, job.reporter
    )
    report["audit"] = checks
    report["data"] = offline_evaluation.describe(dataset) | {
        "rejects": json.loads((job.work / "rejects.json").read_text())
    }
    report["ties"] = offline_evaluation.ties(dataset.events, cut, truth)
    report["importances"] = ranker["importances"]
    report["ranker"] = {"reported": ranker["summary"], "released": released["summary"]}
    report["learning_curves"] = offline_evaluation.learning_curves(rounds, ranker["curve"])
    report["examples"] = offline_evaluation.examples(dataset, model, truth, named=False)
    job.reporter.console.print(report_table(report))
    with job.reporter.stage("gate") as progress:
        verdict = (
            gate.judge(report, model, dataset, cut, job.settings)
            if job.settings.gate
            else gate.off(report)
        )
        progress(1.0, verdict.note)
    report["gate"] = verdict.note
    with job.reporter.stage("drift since the serving release") as progress:
        moved = drifted(job, dataset)
        progress(1.0, moved.verdict.note)
    report["drift"] = release_drift.told(moved)
    report |= job.reporter.stages.summary()
    write_json(report, job.work / "metrics.json")
    write_page(report, job.work / publish.PAGE)
    refusals = [told for told in (verdict.refusal, moved.verdict.refusal) if told is not None]
    if refusals and job.settings.gate:
        raise ReleaseRefused(
            f"{'; '.join(refusals)}, or set SHORTLIST_GATE=off to publish all the same"
        )


def drifted(job: Job, dataset: Dataset) -> release_drift.Drift:
    """How users, items and features of the model to release differ from those of the serving release; keeps histograms."""
    tables = release_drift.tables_of(dataset, load_fold(job, 2))
    release_drift.save(job.work, tables)
    strata.save(job.work, strata.split(tables["features"]))
    with contextlib.closing(
        open_store(job.settings.redis_url, job.settings.namespace, publish.BATCH_TIMEOUT_MS)
    ) as store:
        pointer = store.release()
    if pointer is None:
        return release_drift.Drift(gate.Verdict(None, "no release is serving yet"), {}, {})
    return release_drift.against_release(
        open_artefacts(job.settings.artefacts), pointer.current, tables
    )


def precompute_lists(job: Job) -> None:
    """Assembles the bundle, and computes the list of every user from it."""
    dataset = dataset_file.load(job.work)
    directory = job.work / "bundle"
    if not is_done(
        job, ASSEMBLED
    ):  # else an interrupted precompute goes on with the bundle that it began with
        with job.reporter.stage("assemble the bundle"):
            _save_bundle(job, dataset, directory)
        _mark(job, ASSEMBLED).write_text(_key(job, ASSEMBLED))
    settings = job.settings
    with job.reporter.stage("precompute the lists") as progress:
        if settings.engine == "local" and settings.workers == 1:
            precompute.write_shards(
                bundle.load(directory), dataset, job.work / "lists", settings.list_length, progress
            )
        else:
            precompute.write_shards_by(
                settings.engine, settings.workers, job.work, settings.list_length, progress
            )


def publish_release(job: Job) -> None:
    """Uploads the bundle, writes the lists, verifies both, and flips the pointer."""
    replaces = _served_before(job)
    publish.publish(
        job.work / "bundle", job.work / "lists", job.settings, job.reporter, job.lease, replaces
    )


def _note_serving(job: Job) -> None:
    """Notes which release this run sets out to replace, before it reads anything."""
    noted = {"target": _target(job), "release": publish.serving(job.settings)}
    (job.work / SERVED).write_text(json.dumps(noted))


def _served_before(job: Job) -> object:
    """The release that served when this run read its data; any one where that was of another Redis."""
    path = job.work / SERVED
    if not path.exists():  # a work directory that an earlier version of this code began
        return releases.ANY
    noted = json.loads(path.read_text())
    return noted["release"] if noted["target"] == _target(job) else releases.ANY


def _target(job: Job) -> str:
    """Stands for the Redis and the namespace: the URL may hold a password."""
    return hashlib.sha256(
        f"{job.settings.redis_url}\n{job.settings.namespace}".encode()
    ).hexdigest()


STAGES: dict[str, Callable[[Job], None]] = {
    "features": features,
    "train-embeddings": train_embeddings,
    "build-index": build_index,
    "train-ranker": train_ranker,
    "evaluate": evaluate,
    "precompute": precompute_lists,
    PUBLISH: publish_release,
}


def run(job: Job) -> None:
    """Runs every stage that has not finished on this input and these settings, under the lease of the namespace.

    Raises:
        LeaseHeld: another batch is at work, here or elsewhere.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone_in(job.work))
        for name in STAGES:
            if is_done(job, name):
                job.reporter.say(f"  {name}: done already")
                continue
            lease = job.lease or stack.enter_context(leased(job.settings, local_run(job.work)))
            lease.check()
            job = replace(job, lease=lease)
            run_stage(job, name)


def run_stage(job: Job, name: str) -> None:
    """Runs one stage, whose forerunners must have finished.

    Raises:
        InvalidInput: a forerunner has not run on this input and these settings.
    """
    names = list(STAGES)
    missing = [n for n in names[: names.index(name)] if not is_done(job, n)]
    if missing:
        raise InvalidInput(
            f"stage {name} needs {', '.join(missing)} first: run them, or `shortlist batch run` for all"
        )
    outdated = names[names.index(name) :] + ([] if name in ("precompute", PUBLISH) else [ASSEMBLED])
    for later in outdated:
        _mark(job, later).unlink(missing_ok=True)
    STAGES[name](job)
    _mark(job, name).parent.mkdir(parents=True, exist_ok=True)
    _mark(job, name).write_text(_key(job, name))


def is_done(job: Job, name: str) -> bool:
    """Whether a stage finished on this very input and these settings."""
    mark = _mark(job, name)
    if not mark.exists() or mark.read_text() != _key(job, name):
        return False
    return name != PUBLISH or publish.is_there(job.settings, job.work / "bundle")


def _mark(job: Job, name: str) -> Path:
    return job.work / "done" / name


def _key(job: Job, name: str) -> str:
    """What a finished stage was made from; for the last, where to as well, so that another Redis needs no other training.

    Not the deletions: each would start a night's run anew, and `publish` heeds them.
    """
    told = [
        CODE_VERSION,
        str(RECIPE),
        repr(job.params),
        job.protocol,
        str(job.settings.list_length),
        str(job.max_reject_share),
        str(job.positive_rating),
    ]
    if name == PUBLISH:
        told += [job.settings.artefacts, job.settings.redis_url, job.settings.namespace]
    drained = None if job.events is None else pattern_of(job.events)
    sources = {
        "interactions": job.interactions,
        "items": job.items,
        "users": job.users,
        "events": drained,
    }
    for table, source in sources.items():
        told.append(str(source))
        told += [] if source is None else marks(source, table)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def load_fold(job: Job, number: int, *, ranked: bool = False) -> Model:
    """A fold's model; with its ranker where `ranked`."""
    directory = job.fold(number)
    ranker = ranker_from(bundle.load_ranker_text(directory)) if ranked else None
    return assemble(bundle.load_towers(directory), bundle.load_table(directory), job.params, ranker)


def _save_ranker(directory: Path, ranker: FittedRanker) -> None:
    bundle.save_ranker_text(directory, ranker.text)
    told = {
        "importances": ranker.importances,
        "curve": ranker.curve,
        "summary": offline_evaluation.summary(ranker),
    }
    (directory / "ranker.json").write_text(json.dumps(told))


def _save_bundle(job: Job, dataset: Dataset, directory: Path) -> None:
    now = datetime.now(UTC)
    events = dataset.events
    text = bundle.load_ranker_text(job.fold(2))
    report = json.loads((job.work / "metrics.json").read_text())
    fields = {
        "version": f"{now:%Y%m%dT%H%M%SZ}-{dataset.fingerprint[:8]}",
        "created_at": int(time.time()),
        "as_of": int(events.time.max()),
        "watermark": int((job.work / WATERMARK).read_text()),
        "code_version": CODE_VERSION,
        "data": offline_evaluation.describe(dataset),
        "index": json.loads((job.work / "index.json").read_text()),
        "importances": json.loads((job.fold(2) / "ranker.json").read_text())["importances"],
        "metrics": report["methods"],
        "gate": report["gate"],
        "ranker": report["ranker"],
        "protocol": job.protocol,
        "list_length": job.settings.list_length,
    }
    model = load_fold(job, 2)
    directory.mkdir(parents=True, exist_ok=True)
    for kept in (skew.FILE, strata.FILE, publish.PAGE):
        shutil.copyfile(job.work / kept, directory / kept)
    bundle.save(directory, model, text, dataset.catalogue, dataset.vocabulary, fields)
