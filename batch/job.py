"""Runs the scheduled job, stage by stage.

Stages meet only in the work directory. A stage that finished is not run again while neither its
input nor its settings have changed, so a job that was interrupted resumes at the first stage that
is missing.

Three folds keep it point in time, see `Fold`. The report is on the model of the fold
BEFORE_HOLDOUT, with a ranker whose labels the towers of the fold BEFORE_LABELS did not see. The
released ranker has as many trees, and learns from the same groups and from those with the hold-out
as labels. Where validation shows no gain, neither is used, and lists keep the retriever's order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.batch import (
    dataset_file,
    gate,
    offline_evaluation,
    precompute,
    publish,
    release_drift,
    serving_release,
    stages,
)
from shortlist.batch.audit import audit
from shortlist.batch.config import fit_params
from shortlist.batch.known_events import known_events
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.stage_groups import groups_by
from shortlist.batch.stage_towers import towers_of_folds
from shortlist.batch.studio import collect, reach
from shortlist.batch.studio import facts as studio_facts
from shortlist.batch.tables import reject_lines
from shortlist.batch.workspace import alone_in, leased, local_run
from shortlist.recsys import data
from shortlist.recsys.data.sources import TableSource, source_of
from shortlist.recsys.data.staging import file_versions
from shortlist.recsys.errors import InvalidInput, ReleaseRefused
from shortlist.recsys.evaluation.page import write_page
from shortlist.recsys.evaluation.repeats_note import repeats_note
from shortlist.recsys.evaluation.report import Report, repeats_table, write_json
from shortlist.recsys.evaluation.report import table as report_table
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models import bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.index import measure
from shortlist.recsys.models.interactions import Int32, Int64, states_at
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.models.ranker import ranker_from
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.settings import HoldoutProtocol, Settings
from shortlist.recsys.store import release_facts, releases
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.event_files import (
    DEAD_LETTERS,
    DirectoryEventFiles,
    open_event_files,
    pattern_of,
)
from shortlist.recsys.store.lease import Lease
from shortlist.recsys.store.release_facts import ReleaseFacts
from shortlist.recsys.store.release_files import build_manifest, manifest_in
from shortlist.recsys.store.watermark import BEGINNING, position_at
from shortlist.recsys.training.fit import (
    Fold,
    assemble,
    groups_after,
    horizon_of,
    item_table_of,
    past_of,
    ranker_training_groups,
    ranker_validation_groups,
    refit_ranker,
    validated_ranker,
)
from shortlist.recsys.training.lambdamart import FittedRanker
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.ranking_groups import RankingGroups
from shortlist.recsys.training.split import cuts
from shortlist.recsys.values import FIRST_CLOCK_TIME
from shortlist.recsys.version import installed_version

RECIPE = 8
"""Raised when stages make something else of the same input, so that all of them run again."""

WATERMARK = "watermark.txt"
"""In the work directory: the position in the stream of events up to which the run has learnt."""

TABLE_LAG_SECONDS = 86_400
"""How late a table may have what came over HTTP, where events are not drained.

Until then such events count as newer than the table.
"""

REJECTS = "rejects.parquet"
"""In the work directory: the rejected rows with their reasons."""

SERVED = "served.json"
"""In the work directory: the release that served when the run began."""

INDEX_QUERIES = 500
"""Users whose searches measure the recall of the index."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: its tables, its work directory, and its settings."""

    interactions: str | TableSource
    items: str | TableSource | None
    users: str | TableSource | None
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
    event_rules: EventRules = field(default_factory=EventRules)
    """What the types and weights of events mean."""
    lease: Lease | None = None
    """The run's; None takes one for the publication alone."""
    rules: Mapping[str, Any] | None = None
    """Business rules to put in place at the publication; None leaves those in Redis."""
    is_offline: bool = False
    """Whether the run knows no Redis: nothing serves, nobody was deleted, nothing is published."""

    @property
    def protocol(self) -> HoldoutProtocol:
        """How the report's hold-out is cut."""
        return self.settings.protocol

    @property
    def params(self) -> FitParams:
        """The models' parameters."""
        return fit_params(self.settings) if self.config is None else self.config

    def fold(self, fold: Fold) -> Path:
        """The directory of a fold."""
        return self.work / f"fold-{fold}"


def latest_known(times: Int64, started: float) -> float:
    """A table's latest past time: until then it can have what came over HTTP.

    times: int64[n] of the table; started: unix seconds at which it was read, which stands in where
    the times are no clock's.
    """
    past = times[times <= started]
    latest = int(past.max()) if len(past) else 0
    return latest if latest >= FIRST_CLOCK_TIME else started


def features(job: Job) -> None:
    """Reads the tables; fills each fold's item table."""
    job.work.mkdir(parents=True, exist_ok=True)
    _note_serving(job)  # before anything is read: a release that is flipped meanwhile counts
    with job.reporter.stage("read and validate") as progress:
        started = time.time()
        # Before the files are read: what is drained meanwhile may or may not be in them.
        drained = BEGINNING if job.is_offline else publish.drained_up_to(job.settings)
        missing = _missing_events(job, drained)
        loaded = _load(job)
        dataset = loaded.dataset
        progress(1.0, _load_note(loaded))
        _write_json(job.work / "rejects.json", loaded.rejects)
        # Raises now, not after hours of training, where the data has nothing to evaluate on.
        cut, repeats = cuts(dataset.events, job.protocol), job.params.repeats
        counted = offline_evaluation.count_repeats(dataset, cut, repeats)
        offline_evaluation.truth_after(dataset, cut, repeats)
        dataset_file.save(job.work, dataset)
        if job.events is None:
            times = np.append(dataset.events.time, dataset.events.negatives.time)
            watermark = position_at(latest_known(times, started) - TABLE_LAG_SECONDS)
        else:
            watermark = drained if missing is None else BEGINNING
        (job.work / WATERMARK).write_text(str(watermark))
    rejected = reject_lines(loaded.rejects, job.work / REJECTS)
    for note in (*rejected, *loaded.notes, missing, repeats_note(counted)):
        if note is not None:
            job.reporter.say(f"  {note}")
    for fold in Fold:
        with job.reporter.stage(f"features, fold {fold}"):
            job.fold(fold).mkdir(exist_ok=True)
            past = past_of(dataset, job.protocol, job.params, fold)
            bundle.save_table(job.fold(fold), item_table_of(dataset, past))


def _missing_events(job: Job, drained: int) -> str | None:
    """A note, if nothing lies where the events of the stream up to `drained` should; else None.

    Raises:
        InvalidInput: the place does not exist.
    """
    if job.events is None or drained == BEGINNING:
        return None
    place = open_event_files(job.events)
    if place.names() or place.names(DEAD_LETTERS):
        return None
    missing = f"events: some were drained, but there are none in {job.events!r}"
    remedy = "name the place that `shortlist events drain --out` wrote to"
    if isinstance(place, DirectoryEventFiles) and not Path(job.events).exists():
        raise InvalidInput(f"{missing}, which does not exist: {remedy}")
    # All may have been of users who were deleted since.
    return f"{missing}: nothing is learnt from them; if that is wrong, {remedy}"


def _load(job: Job) -> data.Loaded:
    return data.load(
        job.interactions,
        job.items,
        job.users,
        max_reject_share=job.max_reject_share,
        rejects=job.work / REJECTS,
        positive_rating=job.positive_rating,
        events=job.events,
        event_rules=job.event_rules,
        is_forgotten=None if job.is_offline else publish.deleted_users(job.settings),
    )


def _load_note(loaded: data.Loaded) -> str:
    """Counts what a load kept and rejected.

    Drained events are counted apart from the rows of the tables.
    """
    rejects = loaded.rejects.items()
    n_drained = sum(count for reason, count in rejects if reason.startswith("events: "))
    n_rows = sum(loaded.rejects.values()) - n_drained
    note = f"{len(loaded.dataset.events)} events kept, {n_rows} rows rejected"
    if loaded.n_drained:
        note += f"; of {loaded.n_drained} drained events {n_drained} rejected"
    return note


def train_embeddings(job: Job) -> None:
    """Trains the towers of each fold."""
    trained = towers_of_folds(
        job.work, job.protocol, job.params, job.reporter, job.settings.workers
    )
    for fold, result in trained:
        bundle.save_towers(job.fold(fold), result.towers)
        training = {"events": result.events_digest, "rounds": result.rounds}
        _write_json(job.fold(fold) / "towers.json", training)


def build_index(job: Job) -> None:
    """Builds the serving index, and measures its recall."""
    dataset = dataset_file.load(job.work)
    events = dataset.events
    with job.reporter.stage("build the index") as progress:
        model = load_fold(job, Fold.EVERYTHING)
        offsets = events.offsets()
        # A fixed seed: the recall of two runs on the same data is of the same users.
        users = np.random.default_rng(0).permutation(events.n_users)[:INDEX_QUERIES]
        states = states_at(
            events, offsets[:-1][users], offsets[1:][users], dataset.attributes[users], users
        )
        queries = user_vectors(model.towers, states)
        stats = measure(model.index, model.towers.items, queries, job.settings.top_k_candidates)
        index = {
            "kind": stats.kind,
            "n_items": stats.n_items,
            "recall": stats.recall,
            "recall_at": stats.recall_at,
        }
        _write_json(job.work / "index.json", index)
        progress(1.0, f"{stats.kind}, recall@{stats.recall_at} {stats.recall:.4f}")


def train_ranker(job: Job) -> None:
    """Trains the reported ranker, then the released one."""
    dataset = dataset_file.load(job.work)
    groups, reported = _train_reported_ranker(job, dataset)
    with job.reporter.stage("train the ranker to release") as progress:
        holdout = cuts(dataset.events, job.protocol)
        model, horizon = load_fold(job, Fold.BEFORE_HOLDOUT), horizon_of(job.protocol)
        make = groups_by(job.settings.workers, job.reporter)
        # The hold-out's labels too: it has been spent on the report, and is the newest data.
        # Other draws than the first groups': theirs would take the same candidates of a user.
        newest = groups_after(
            model, dataset, dataset.events, holdout, horizon, job.params, make, draw=5
        )
        released = refit_ranker(reported, [groups, newest], job.params)
        _save_ranker(job.fold(Fold.EVERYTHING), released)
        progress(1.0, released.note)


def _train_reported_ranker(job: Job, dataset: Dataset) -> tuple[RankingGroups, FittedRanker]:
    """Gives the reported ranker, and its training groups."""
    with job.reporter.stage("train the ranker to report on") as progress:
        past = past_of(dataset, job.protocol, job.params, Fold.BEFORE_HOLDOUT)
        model = load_fold(job, Fold.BEFORE_LABELS)
        make = groups_by(job.settings.workers, job.reporter)
        given = model, dataset, past, job.protocol, job.params, make
        groups, validation = ranker_training_groups(*given), ranker_validation_groups(*given)
        reported = validated_ranker(groups, validation, job.params)
        _save_ranker(job.fold(Fold.BEFORE_HOLDOUT), reported)
        progress(1.0, reported.note)
    return groups, reported


def evaluate(job: Job) -> None:
    """Reports on the hold-out, and judges the release.

    It has to beat popularity, and may not fall too far below the serving release.

    Raises:
        ReleaseRefused: by the gate, or by the drift since the serving release.
    """
    dataset = dataset_file.load(job.work)
    model = load_fold(job, Fold.BEFORE_HOLDOUT, ranked=True)
    report = _report(job, dataset, model)
    job.reporter.console.print(report_table(report))
    repeated = repeats_table(report)
    if repeated is not None:
        job.reporter.console.print(repeated)
    serving = None if job.is_offline else publish.serving(job.settings)
    with job.reporter.stage("gate") as progress:
        verdict = _verdict(job, report, model, dataset, serving)
        progress(1.0, verdict.note)
    report["gate"] = verdict.note
    with job.reporter.stage("drift since the serving release") as progress:
        drift = drifted(job, dataset, serving)
        progress(1.0, drift.verdict.note)
    report["drift"] = release_drift.drift_section(drift)
    if serving is not None:
        report["serving"] = serving_release.described(
            open_artefacts(job.settings.artefacts),
            serving,
            dataset,
            job.protocol,
            job.params.repeats,
            verdict.compared,
        )
    refusals = [r for r in (verdict.refusal, drift.verdict.refusal) if r is not None]
    report["refusals"], report["is_gated"] = refusals, job.settings.gate
    report["made_at"] = int(time.time())
    report |= job.reporter.stages.summary()
    write_json(report, job.work / "metrics.json")
    write_page(report, job.work / stages.PAGE)
    if refusals and job.settings.gate:
        raise ReleaseRefused(
            f"{'; '.join(refusals)}, or set SHORTLIST_GATE=off to publish all the same"
        )


def _report(job: Job, dataset: Dataset, model: Model) -> Report:
    cut = cuts(dataset.events, job.protocol)
    truth = offline_evaluation.truth_after(dataset, cut, job.params.repeats)
    past = past_of(dataset, job.protocol, job.params, Fold.BEFORE_HOLDOUT)
    events_digest = _read_json(job.fold(Fold.BEFORE_HOLDOUT) / "towers.json")["events"]
    rounds = _read_json(job.fold(Fold.BEFORE_LABELS) / "towers.json")["rounds"]
    ranker = _read_json(job.fold(Fold.BEFORE_HOLDOUT) / "ranker.json")
    released = _read_json(job.fold(Fold.EVERYTHING) / "ranker.json")
    with job.reporter.stage("leak audit"):  # first: a leak makes all figures worthless
        checks = audit(dataset, cut, past, model, truth, {"towers": events_digest})
    picks = collect.drawn(dataset)
    workers = job.settings.workers
    lists = offline_evaluation.listed(model, truth, job.reporter, workers)
    report = offline_evaluation.compare(
        model,
        past,
        truth,
        dataset.catalogue,
        job.protocol,
        job.reporter,
        lists=lists,
        workers=workers,
    )
    shown = np.isin(truth.users, picks.users)
    _write_facts(job, dataset, picks, truth, lists.two_stage.items[shown])
    report["known_events"] = known_events(dataset, cut, model, past, job.protocol, job.reporter)
    report["audit"] = checks
    report["data"] = offline_evaluation.describe(dataset)
    report["data"]["rejects"] = _read_json(job.work / "rejects.json")
    report["left_out"] = offline_evaluation.left_out(dataset, cut, truth)
    report["ties"] = offline_evaluation.ties(dataset.events, cut, truth)
    counted = offline_evaluation.count_repeats(dataset, cut, job.params.repeats)
    report["repeats"] = counted | report.get("repeats", {})
    report["importances"] = ranker["importances"]
    report["ranker"] = {"reported": ranker["summary"], "released": released["summary"]}
    report["learning_curves"] = offline_evaluation.learning_curves(rounds, ranker["curve"])
    # Without ids: the page lives in the bundle, and outlives a user's deletion.
    report["examples"] = offline_evaluation.examples(dataset, model, truth, named=False)
    return report


def _write_facts(
    job: Job, dataset: Dataset, picks: collect.Picks, truth: Truth, lists: Int32
) -> None:
    """Writes what the studio shows of the data and of the hold-out."""
    with job.reporter.stage("facts for the studio") as progress:
        vectors = bundle.load_towers(job.fold(Fold.EVERYTHING)).vectors
        facts = collect.collected(dataset, picks, truth, lists, vectors, job.work / REJECTS)
        body = collect.packed(facts)
        (job.work / studio_facts.FILE).write_bytes(body)
        progress(1.0, f"{len(body) / 2**10:.0f} KiB")


def _verdict(
    job: Job, report: Report, model: Model, dataset: Dataset, serving: str | None
) -> gate.Verdict:
    if not job.settings.gate:
        return gate.off(report)
    cut = cuts(dataset.events, job.protocol)
    return gate.judge(report, model, dataset, cut, job.settings, serving)


def drifted(job: Job, dataset: Dataset, serving: str | None) -> release_drift.Drift:
    """Measures drift since the serving release; keeps histograms."""
    tables = release_drift.tables_of(dataset, load_fold(job, Fold.EVERYTHING))
    # Kept whatever the verdict: the next release is compared with these.
    release_drift.save(job.work, tables)
    strata.save(job.work, strata.split(tables["features"]))
    if serving is None:
        return release_drift.Drift(gate.Verdict(None, "no release was serving"), {}, {})
    return release_drift.against_release(open_artefacts(job.settings.artefacts), serving, tables)


def precompute_lists(job: Job) -> None:
    """Assembles the bundle, and computes all users' lists."""
    dataset = dataset_file.load(job.work)
    directory, lists = _assembled(job, dataset), job.work / "lists"
    engine, length = job.settings.engine, job.settings.list_length
    workers = precompute.workers_of(job.work, job.settings.workers, dataset.events.n_users)
    with job.reporter.stage("precompute the lists") as progress:
        if engine == "local" and workers == 1:
            precompute.write_shards(bundle.load(directory), dataset, lists, length, progress)
        else:
            precompute.write_shards_by(engine, workers, job.work, length, progress)
    with job.reporter.stage("count who is offered what"):
        _add_reach(directory, lists, len(dataset.catalogue))


def _add_reach(directory: Path, lists: Path, n_items: int) -> None:
    """Adds to the bundle in how many lists each item stands."""
    fields = {n: value for n, value in manifest_in(directory).items() if n != "files"}
    each = precompute.read_lists(lists, str(fields["version"]))
    np.save(directory / reach.FILE, reach.reach(each, n_items))
    build_manifest(directory, **fields)


def _assembled(job: Job, dataset: Dataset) -> Path:
    """The directory of the run's bundle."""
    directory = job.work / "bundle"
    # An interrupted precompute goes on with its bundle: the shards of another would not count.
    if not is_done(job, stages.ASSEMBLE):
        with job.reporter.stage("assemble the bundle"):
            _save_bundle(job, dataset, directory)
        stages.stamp(job.work, stages.ASSEMBLE, stage_key(job, stages.ASSEMBLE))
    return directory


def publish_release(job: Job) -> None:
    """Publishes the bundle and the lists."""
    publish.publish(
        job.work / "bundle",
        job.work / "lists",
        job.settings,
        job.reporter,
        job.lease,
        _served_before(job),
        job.rules,
    )


def _note_serving(job: Job) -> None:
    """Notes which release this run sets out to replace."""
    if job.is_offline:
        return
    note = {"target": _target(job), "release": publish.serving(job.settings)}
    _write_json(job.work / SERVED, note)


def _served_before(job: Job) -> object:
    """The release that served when the run began, or ANY where that was in another Redis."""
    path = job.work / SERVED
    if not path.exists():  # a work directory that an earlier version of this code began
        return releases.ANY
    note = _read_json(path)
    return note["release"] if note["target"] == _target(job) else releases.ANY


def _target(job: Job) -> str:
    """Digest of the Redis and the namespace."""
    # A digest, as the URL may hold a password.
    target = f"{job.settings.redis_url}\n{job.settings.namespace}"
    return hashlib.sha256(target.encode()).hexdigest()


_FUNCTIONS: tuple[Callable[[Job], None], ...] = (
    features,
    train_embeddings,
    build_index,
    train_ranker,
    evaluate,
    precompute_lists,
    publish_release,
)
STAGES = dict(zip(stages.NAMES, _FUNCTIONS, strict=True))
"""The function of each stage, in the order in which they run."""


def run(job: Job) -> None:
    """Runs all missing stages under the namespace's lease.

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


def run_offline(job: Job) -> Path:
    """Runs the missing stages up to the bundle, and gives its directory.

    Raises:
        ReleaseRefused: by the gate.
    """
    with alone_in(job.work):
        for name in stages.NAMES[: stages.NAMES.index(stages.PRECOMPUTE)]:
            if not is_done(job, name):
                run_stage(job, name)
        return _assembled(job, dataset_file.load(job.work))


def run_stage(job: Job, name: str) -> None:
    """Runs one stage; earlier ones must be done.

    Raises:
        InvalidInput: an earlier one has not run on this input and these settings.
    """
    names = list(STAGES)
    stages.refuse_missing(name, [n for n in names[: names.index(name)] if not is_done(job, n)])
    outdated = names[names.index(name) :]
    if stages.PRECOMPUTE in outdated[1:]:
        outdated.append(stages.ASSEMBLE)
    # Before it runs: a stage that is killed has changed files that later stages were made from.
    for later in outdated:
        stages.remove_stamp(job.work, later)
    STAGES[name](job)
    stages.stamp(job.work, name, stage_key(job, name))


def is_done(job: Job, name: str) -> bool:
    """Whether a stage finished on this input and settings."""
    key = stages.stamped_key(job.work, name)
    # The stage's own key last: it looks at the tables, which may be far away or not there.
    if key is None or key != stage_key(job, name):
        return False
    return name != stages.PUBLISH or publish.is_there(job.settings, job.work / "bundle")


def stage_key(job: Job, name: str) -> str:
    """Digest of what a stage is made from: the code, the parameters and the state of the tables.

    That of the last stage has also where it publishes to, so that another Redis needs no other
    training. The deletions are not part of it: each would start a night's run again, and `publish`
    respects them.
    """
    parts = [
        installed_version(),
        str(RECIPE),
        repr(job.params),
        job.protocol,
        str(job.settings.list_length),
        str(job.max_reject_share),
        str(job.positive_rating),
        repr(job.event_rules),
    ]
    if name == stages.PUBLISH:
        parts += [job.settings.artefacts, job.settings.redis_url, job.settings.namespace]
        parts += [] if job.rules is None else [json.dumps(job.rules)]
    sources = {
        "interactions": job.interactions,
        "items": job.items,
        "users": job.users,
        "events": None if job.events is None else pattern_of(job.events),
    }
    for table, source in sources.items():
        parts.append(repr(source))  # of a mapping: all that it says of the table
        for path in () if source is None else source_of(source).paths:
            parts += file_versions(path, table)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_fold(job: Job, fold: Fold, *, ranked: bool = False) -> Model:
    """A fold's model; with its ranker where `ranked`."""
    directory = job.fold(fold)
    ranker = ranker_from(bundle.load_ranker_text(directory)) if ranked else None
    return assemble(bundle.load_towers(directory), bundle.load_table(directory), job.params, ranker)


def _save_ranker(directory: Path, ranker: FittedRanker) -> None:
    bundle.save_ranker_text(directory, ranker.text)
    training = {
        "importances": ranker.importances,
        "curve": ranker.curve,
        "summary": offline_evaluation.summary(ranker),
    }
    _write_json(directory / "ranker.json", training)


def _save_bundle(job: Job, dataset: Dataset, directory: Path) -> None:
    now = datetime.now(UTC)
    as_of = dataset.events.latest
    facts = ReleaseFacts(
        events=job.event_rules,
        repeats=job.params.repeats.value,
        has_clock_times=as_of >= FIRST_CLOCK_TIME,
        attributes={a.name: a.kind for a in dataset.catalogue.attributes if a.is_filtered},
    )
    ranker_text = bundle.load_ranker_text(job.fold(Fold.EVERYTHING))
    report = _read_json(job.work / "metrics.json")
    manifest = {
        "version": f"{now:%Y%m%dT%H%M%SZ}-{dataset.fingerprint[:8]}",
        "created_at": int(now.timestamp()),
        "as_of": as_of,
        "watermark": int((job.work / WATERMARK).read_text()),
        "code_version": installed_version(),
        "data": offline_evaluation.describe(dataset),
        "index": _read_json(job.work / "index.json"),
        "importances": _read_json(job.fold(Fold.EVERYTHING) / "ranker.json")["importances"],
        "metrics": report["methods"],
        "gate": report["gate"],
        "seconds": report["seconds_total"],
        "ranker": report["ranker"],
        "protocol": job.protocol,
        "list_length": job.settings.list_length,
        release_facts.FIELD: release_facts.as_fields(facts),
    }
    model = load_fold(job, Fold.EVERYTHING)
    directory.mkdir(parents=True, exist_ok=True)
    for name in (skew.FILE, strata.FILE, stages.PAGE, studio_facts.FILE):
        shutil.copyfile(job.work / name, directory / name)
    shutil.copyfile(job.work / "metrics.json", directory / studio_facts.REPORT)
    bundle.save(directory, model, ranker_text, dataset.catalogue, dataset.vocabulary, manifest)


def _read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
