"""Runs the whole batch: resumption, refusals, and publication.

Bad releases are refused, and a release is published in one flip.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from shortlist.batch import job, offline_evaluation, precompute, publish
from shortlist.batch.config import fit_params
from shortlist.batch.job import Job
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys import data
from shortlist.recsys.errors import (
    InvalidData,
    InvalidInput,
    ReleaseNotFound,
    ReleaseRefused,
    ShortlistError,
)
from shortlist.recsys.evaluation.report import METHOD_METRICS
from shortlist.recsys.models import bundle
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.redis import open_store
from shortlist.recsys.store.release_files import manifest_in
from shortlist.recsys.training import lambdamart
from tests.smallest import smallest

BASELINES = [
    "popularity",
    "recent_popularity",
    "item_knn",
    "recent_item_knn",
    "ease",
    "recent_ease",
]
METHODS = [*BASELINES, "als", "bpr_towers", "retriever", "two_stage"]
SMALL = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "20",
    "LGBM_N_ESTIMATORS": "10",
    "SHORTLIST_THREADS": "1",
}


def table(
    tmp_path: Path, users: list[int], items: list[int], times: list[int] | None = None
) -> str:
    """Interactions on disk; times are sequence numbers unless given."""
    path = tmp_path / "interactions.parquet"
    columns = {
        "user_id": users,
        "item_id": items,
        "timestamp": list(range(len(users))) if times is None else times,
    }
    pl.DataFrame(columns).write_parquet(path)
    return str(path)


@pytest.fixture
def small_job(tables, tmp_path, valkey_url, namespace, reporter) -> Job:
    """A job on the small world, with a namespace and a place of its own."""
    environ = SMALL | {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
    }
    paths = [str(tables / f"{name}.parquet") for name in ("interactions", "items", "users")]
    settings = Settings.from_env(environ)
    return Job(*paths, tmp_path / "work", settings, reporter, config=smallest(settings))


@pytest.fixture(scope="module")
def trained(tables, tmp_path_factory) -> Path:
    """The work directory of a job like `small_job` that has done all but publish."""
    paths = [str(tables / f"{name}.parquet") for name in ("interactions", "items", "users")]
    settings = Settings.from_env(SMALL)
    silent = ProgressReporter(Console(file=io.StringIO()))
    work = tmp_path_factory.mktemp("trained") / "work"
    made = Job(*paths, work, settings, silent, config=smallest(settings), is_offline=True)
    for name in list(job.STAGES)[:-1]:
        job.run_stage(made, name)
    return work


@pytest.fixture
def trained_job(small_job, trained) -> Job:
    """The job `small_job`, which has only to publish."""
    shutil.copytree(trained, small_job.work)
    return small_job


def pointer(current_job: Job) -> ReleasePointer | None:
    """What serves where a job publishes."""
    with closing(
        open_store(current_job.settings.redis_url, current_job.settings.namespace, 1000)
    ) as store:
        return store.release()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages that run from here on."""
    ran: list[str] = []

    def noting(name: str, stage: Callable[[Job], None]) -> Callable[[Job], None]:
        def run(current_job: Job) -> None:
            ran.append(name)
            stage(current_job)

        return run

    monkeypatch.setattr(
        job, "STAGES", {name: noting(name, stage) for name, stage in job.STAGES.items()}
    )
    return ran


def test_an_empty_redis_is_published_again(trained_job, monkeypatch) -> None:
    """Nothing is trained for it; the release is whole again."""
    job.run(trained_job)
    serving = pointer(trained_job)
    with closing(
        open_store(trained_job.settings.redis_url, trained_job.settings.namespace, 1000)
    ) as store:
        store.redis.delete(*store.redis.scan_iter(f"*{trained_job.settings.namespace}*"))
        ran = counted(monkeypatch)
        job.run(trained_job)
        assert (ran, pointer(trained_job), store.is_whole(serving.current)) == (
            ["publish"],
            serving,
            True,
        )


@pytest.mark.parametrize(
    ("times", "latest"),
    [
        ([5, 900_000_000], 900_000_000),
        ([1, 2, 3], 1e9),
        ([900_000_000, 4_000_000_000], 900_000_000),
        ([2**40], 1e9),
    ],
)
def test_until_when_a_table_knows(times, latest) -> None:
    """Its latest time; sequence numbers are no times, and rows of the future do not count."""
    assert job.latest_known(np.array(times, np.int64), 1e9) == latest


def test_only_changed_settings_run_again(small_job, monkeypatch) -> None:
    """Stages are skipped while input and settings are the same, and each run flips the pointer."""
    ran = counted(monkeypatch)
    job.run(small_job)
    job.run(small_job)
    assert ran == list(job.STAGES)
    first = pointer(small_job)
    settings = replace(small_job.settings, top_k_candidates=30)
    changed = replace(small_job, settings=settings, config=smallest(settings))
    monkeypatch.setattr(job, "datetime", type("Later", (), {"now": staticmethod(job_time)}))
    job.run(changed)
    assert ran == [*job.STAGES, *job.STAGES]
    second = pointer(changed)
    assert second == ReleasePointer(second.current, first.current)
    rolled = publish.rollback(changed.settings)
    assert rolled == ReleasePointer(first.current, second.current)
    assert publish.promote(changed.settings, rolled.previous).current == rolled.previous


def test_publishing_elsewhere_needs_no_training(trained_job, monkeypatch) -> None:
    """As where the Redis of the first publication is gone, and another took its place."""
    job.run(trained_job)
    ran = counted(monkeypatch)
    job.run(
        replace(
            trained_job,
            settings=replace(trained_job.settings, namespace=f"{trained_job.settings.namespace}-2"),
        )
    )
    assert ran == ["publish"]


def job_time(zone):
    """A second release's moment, which must differ from the first's."""
    from datetime import datetime, timedelta

    return datetime.now(zone) + timedelta(hours=1)


def test_an_interrupted_job_resumes(small_job, monkeypatch) -> None:
    """What finished before the interruption is kept."""
    for name in ("features", "train-embeddings"):
        job.run_stage(small_job, name)
    ran = counted(monkeypatch)
    job.run(small_job)
    assert ran == list(job.STAGES)[2:]


def test_an_interrupted_precompute_resumes(published, tmp_path, reporter, monkeypatch) -> None:
    """Existing shards stay, those of another version go, and processes make the same bytes."""
    work = tmp_path / "work"
    shutil.copytree(published.work, work)
    whole = min((work / "lists").glob("*.msgpack")).read_bytes()
    monkeypatch.setattr(precompute, "SHARD_USERS", 64)
    for old in (work / "lists").iterdir():
        old.unlink()
    (work / "lists" / "older-000000000.msgpack").write_bytes(b"of another release")
    precompute.write_shards_by(
        "local", 2, work, published.settings.list_length, lambda _share, _note: None
    )
    shards = sorted((work / "lists").iterdir())
    assert [shard.name.rpartition("-")[2] for shard in shards] == [
        f"{n:09d}.msgpack" for n in (0, 64, 128)
    ]
    assert b"".join(shard.read_bytes() for shard in shards) == whole
    shards[0].write_bytes(b"kept")
    shards[1].unlink()
    precompute.write_shards_by(
        "local", 1, work, published.settings.list_length, lambda _share, _note: None
    )
    assert (shards[0].read_bytes(), shards[1].exists()) == (b"kept", True)


def lists_of(work: Path) -> list[list[int]]:
    """The rows of every user's list."""
    version = manifest_in(work / "bundle")["version"]
    return [rows.tolist() for rows in precompute.read_lists(work / "lists", version)]


def test_workers_change_nothing(trained, tables, tmp_path, reporter) -> None:
    """Evaluated and precomputed by two processes: the same report and the same lists."""
    work = tmp_path / "work"
    shutil.copytree(trained, work)
    paths = [str(tables / f"{name}.parquet") for name in ("interactions", "items", "users")]
    settings = Settings.from_env(SMALL | {"SHORTLIST_WORKERS": "2"})
    config = smallest(settings)
    made = Job(*paths, work, settings, reporter, config=config, is_offline=True)
    expected = lists_of(work)
    before = json.loads((work / "metrics.json").read_text())
    for name in ("evaluate", "precompute"):
        job.run_stage(made, name)
    after = json.loads((work / "metrics.json").read_text())
    for section in ("methods", "paired", "candidate_recall", "calibration"):
        assert after[section] == before[section]
    assert lists_of(work) == expected


def test_a_stage_needs_earlier_ones(small_job) -> None:
    """With the names of what is missing."""
    with pytest.raises(InvalidInput, match="features, train-embeddings"):
        job.run_stage(small_job, "build-index")


def test_popularity_must_be_beaten(small_job, monkeypatch) -> None:
    """Nothing is published, and the message gives both figures."""
    honest = offline_evaluation.compare

    def poor(*args: object, **kwargs: object) -> dict:
        report = honest(*args, **kwargs)
        report["methods"]["two_stage"]["ndcg@10"]["value"] = 0.0
        return report

    monkeypatch.setattr(offline_evaluation, "compare", poor)
    with pytest.raises(ReleaseRefused, match="must beat popularity"):
        job.run(small_job)
    assert pointer(small_job) is None


def test_a_damaged_list_stops_the_flip(published, namespace, reporter, monkeypatch) -> None:
    """The pointer stays where it was; the next run completes."""
    settings = replace(published.settings, namespace=namespace)
    store = open_store(settings.redis_url, namespace, 1000)
    store.set_release(ReleasePointer("old"))
    honest = publish.RedisStore.write_lists

    def losing(self, version, lists) -> int:
        written = honest(self, version, lists)
        self.redis.set(self.keys.list(version, published.dataset.user_ids[0]), b"something else")
        return written

    monkeypatch.setattr(publish.RedisStore, "write_lists", losing)
    with pytest.raises(ReleaseRefused, match="read back otherwise"):
        publish.publish(published.work / "bundle", published.work / "lists", settings, reporter)
    assert store.release() == ReleasePointer("old")
    monkeypatch.undo()
    version = publish.publish(
        published.work / "bundle", published.work / "lists", settings, reporter
    )
    assert store.release() == ReleasePointer(version, "old")
    store.close()


def test_nothing_to_roll_back_or_promote(published, namespace) -> None:
    """Both say so, and change nothing."""
    settings = replace(published.settings, namespace=namespace)
    with pytest.raises(InvalidInput, match="nothing to roll back to"):
        publish.rollback(settings)
    with pytest.raises(ReleaseNotFound, match="shortlist release list"):
        publish.promote(settings, "20200101T000000Z-00000000")
    with pytest.raises(InvalidInput, match="no longer whole in Redis"):
        publish.promote(settings, published.version)


ODD = {
    "one user": ([1] * 8, list(range(8))),
    "two users": ([1, 1, 2, 2], [1, 2, 2, 1]),
    "a user with every item": (
        [1] * 10 + [2] * 5 + [3] * 5,
        [*range(10), *range(5), *range(5, 10)],
    ),
    "repeats": ([n // 20 for n in range(200)], [n * 7 % 9 for n in range(200)]),
    "sequence numbers with ties": (
        [n // 12 for n in range(240)],
        [n * n % 31 for n in range(240)],
        [n % 3 for n in range(240)],
    ),
}


@pytest.mark.parametrize("protocol", ["last-10pct", "leave-one-out", "time"])
@pytest.mark.parametrize("case", ODD)
def test_odd_data_is_evaluated_or_refused(case, protocol, tmp_path, reporter) -> None:
    """Without ratings, titles, categories, years or users: a full report, or a clear error."""
    loaded = data.load(table(tmp_path, *ODD[case]), None, None, max_reject_share=1.0)
    report = None
    with suppress(ShortlistError):
        report = offline_evaluation.run(
            loaded.dataset, protocol, smallest(Settings.from_env(SMALL)), reporter
        )
    if report is None:
        return
    assert list(report["methods"]) == METHODS
    assert np.isfinite(report["methods"]["two_stage"]["ndcg@10"]["value"])


@pytest.mark.parametrize(("users", "items"), [([1, 2, 3], [7, 7, 7]), ([1, 1], [7, 7]), ([5], [5])])
def test_data_without_hold_out_is_refused(users, items, tmp_path, reporter) -> None:
    """One item, or users of one event."""
    loaded = data.load(table(tmp_path, users, items), None, None)
    with pytest.raises(InvalidData):
        offline_evaluation.run(
            loaded.dataset, "leave-one-out", fit_params(Settings.from_env(SMALL)), reporter
        )


def test_the_report_has_the_promised_shape(published) -> None:
    """It has every method with intervals, candidate recall, the data, and nameless examples."""
    report = json.loads((published.work / "metrics.json").read_text())
    assert report["protocol"] == "last-10pct"
    assert set(report["candidate_recall"]) == {"retriever", "neighbours", "trending", "all"}
    assert report["data"]["fingerprint"] == published.dataset.fingerprint
    assert list(report["methods"]) == [*BASELINES, "retriever", "two_stage"]
    assert [check["outcome"] for check in report["audit"]] == ["held"] * 5
    assert set(report["learning_curves"]) == {"towers", "ranker"}
    assert [example["user"] for example in report["examples"]] == [
        str(number) for number in range(1, 11)
    ]
    assert report["data"]["rejects"] == {}
    assert report["ties"].keys() == {"tied_events", "drawn_holdouts"}
    assert report["drift"] == {"note": "no release was serving", "rows": []}
    assert report["left_out"] == {"no event": 3}
    assert (report["refusals"], report["is_gated"]) == ([], True)
    assert report["data"]["latest"] == published.dataset.events.latest
    assert report["made_at"] <= time.time()
    assert "serving" not in report


def test_the_report_explains_its_lists(published) -> None:
    """Hits by source and by rank are the same hits, and a longer history helps."""
    report = json.loads((published.work / "metrics.json").read_text())
    recall = report["recall_by_source"]
    assert set(recall) == {"retriever", "neighbours", "trending", "all"}
    parts = [recall[name]["20"] for name in recall if name != "all"]
    assert sum(parts) == pytest.approx(recall["all"]["20"], abs=0.02)  # but for exploration
    ranks = report["calibration"]["ranks"]
    n_held = ranks[0]["hits"] / recall["all"]["1"]
    assert sum(row["hits"] for row in ranks) / n_held == pytest.approx(recall["all"]["20"])
    scores = report["calibration"]["scores"]
    assert scores[-1]["share"] > scores[0]["share"]
    known = report["known_events"]
    assert [row["events"] for row in known] == [1, 2, 3, 5, 10]
    assert len({row["n_users"] for row in known}) == 1
    assert len({row["popularity"]["value"] for row in known}) == 1
    assert known[-1]["two_stage"]["value"] > known[-1]["popularity"]["value"]


def test_a_bundle_has_report_and_histograms(published) -> None:
    """The page for people, and what the next batch compares itself with."""
    manifest = open_artefacts(published.settings.artefacts).manifest(published.version)
    assert {
        "report.html",
        "report.json",
        "reach.npy",
        "skew.msgpack",
        "studio.msgpack",
    } <= set(manifest["files"])
    assert (published.work / "bundle" / "report.json").read_text() == (
        published.work / "metrics.json"
    ).read_text()
    page = (published.work / "report.html").read_text()
    assert "May it serve?" in page
    assert "two_stage" in page


def test_released_and_reported_ranker_agree(published) -> None:
    """As many trees, learnt from the hold-out's groups too; report and manifest state both."""
    report = json.loads((published.work / "metrics.json").read_text())
    manifest = open_artefacts(published.settings.artefacts).manifest(published.version)
    reported, released = report["ranker"]["reported"], report["ranker"]["released"]
    texts = [(published.work / f"fold-{fold}" / "ranker.txt").read_text() for fold in (1, 2)]
    assert [Ranker(text).n_trees for text in texts] == [reported["trees"], released["trees"]]
    assert reported["trees"] == released["trees"] > 0
    assert released["n_groups"] > reported["n_groups"]
    assert reported["used"] is released["used"] is True
    assert reported["validation"]["difference"] > reported["validation"]["standard_error"]
    assert manifest["ranker"] == report["ranker"]


def test_leave_one_out_releases_the_ranker(small_job) -> None:
    """Its hold-out of one event a user is among the labels of the release."""
    current_job = replace(small_job, settings=replace(small_job.settings, protocol="leave-one-out"))
    for name in list(job.STAGES)[:4]:
        job.run_stage(current_job, name)
    kept = [
        json.loads((current_job.fold(fold) / "ranker.json").read_text())["summary"]
        for fold in (1, 2)
    ]
    assert kept[0]["trees"] == kept[1]["trees"] > 0
    assert kept[1]["n_groups"] > kept[0]["n_groups"]


def test_without_gain_no_ranker_is_released(small_job, monkeypatch) -> None:
    """No ranker in report or bundle, the same figures for both methods, and a note everywhere."""
    monkeypatch.setattr(lambdamart.Validation, "shows_a_gain", property(lambda _: False))
    job.run(small_job)
    assert (
        "shows no gain: lists come in the retriever's order"
        in small_job.reporter.console.file.getvalue().replace("\n", " ")
    )
    report = json.loads((small_job.work / "metrics.json").read_text())
    assert report["methods"]["two_stage"] == report["methods"]["retriever"]
    assert report["importances"] == {}
    for which in ("reported", "released"):
        assert report["ranker"][which]["used"] is False
        assert (
            "shows no gain: lists come in the retriever's order" in report["ranker"][which]["note"]
        )
    assert "+0.0000 (+0.0000 to +0.0000) against the retriever's order" in report["gate"]
    artefacts = open_artefacts(small_job.settings.artefacts)
    version = artefacts.versions()[-1]
    assert artefacts.manifest(version)["ranker"]["released"]["used"] is False
    assert bundle.load(small_job.work / "bundle").model.ranker is None
    assert "shows no gain" in (small_job.work / "report.html").read_text()


def test_repeats_leave_other_users_to_compare(small_job, tmp_path) -> None:
    """Half of the users only repeat items; the gate compares the other half, and counts it."""
    whole = pl.read_parquet(small_job.interactions).sort("user_id", "timestamp")
    users = whole["user_id"].to_list()
    last = [
        users[row : row + 5] != [user] * 5 for row, user in enumerate(users)
    ]  # the last four of each user
    first_night = whole.filter(~pl.Series(last))
    night = tmp_path / "night.parquet"
    first_night.write_parquet(night)
    job.run(replace(small_job, interactions=str(night)))
    first, end = pointer(small_job), int(whole["timestamp"].max())
    again = (
        first_night.group_by("user_id", maintain_order=True)
        .first()
        .select("user_id", pl.col("item_id").alias("had"))
    )
    later = whole.filter(pl.Series(last)).join(
        again, on="user_id", how="left", maintain_order="left"
    )
    repeats = pl.col("user_id").cast(pl.String).hash() % 2 == 0
    later = later.with_columns(
        pl.when(repeats).then("had").otherwise("item_id").alias("item_id"),
        (end + pl.int_range(1, pl.len() + 1)).cast(whole.schema["timestamp"]).alias("timestamp"),
    )
    pl.concat([first_night, later.drop("had")]).write_parquet(night)
    with suppress(ReleaseRefused):
        job.run(replace(small_job, interactions=str(night)))
    note = json.loads((small_job.work / "metrics.json").read_text())["gate"]
    newly = later.filter(~repeats)["user_id"].n_unique()
    assert 50 <= newly < 100
    assert f"that of the serving release {first.current} " in note
    assert f"on what {newly} users took to since it was made" in note


def test_lost_ratings_are_refused(trained_job, monkeypatch, tmp_path) -> None:
    """The second batch's events have lost their ratings; the first release goes on serving."""
    job.run(trained_job)
    bare = tmp_path / "bare.parquet"
    pl.read_parquet(trained_job.interactions).drop("rating").write_parquet(bare)
    with pytest.raises(
        ReleaseRefused, match=r"the data drifted by 0.5 nats or more since .*users.weight"
    ):
        job.run(replace(trained_job, interactions=str(bare)))
    report = json.loads((trained_job.work / "metrics.json").read_text())
    (refusal,) = report["refusals"]
    assert "users.weight" in refusal
    assert refusal.split(";")[0] in (trained_job.work / "report.html").read_text()
    assert report["serving"]["version"] == publish.serving(trained_job.settings)
    assert not report["serving"]["same_holdout"]
    assert set(report["serving"]["metrics"]) == set(METHOD_METRICS)
    assert {row["feature"] for row in report["drift"]["rows"] if row["flagged"]} >= {"weight"}
    for row in report["methods"].values():
        assert set(row) == {*METHOD_METRICS, "n_users"}
        assert row["ndcg@10"]["low"] <= row["ndcg@10"]["value"] <= row["ndcg@10"]["high"]
