"""Tests answers and records after refreshes by the real batch.

A list is served while its user has no event beyond what the list has learnt from. Records follow
the table, and keep what came after the drain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient

from shortlist.batch import publish
from shortlist.batch.drain import drain
from shortlist.batch.job import STAGES, WATERMARK, Job, run, run_stage
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.errors import InvalidData, InvalidInput
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.feedback import read
from shortlist.recsys.store.histories import NEWCOMER_SECONDS
from shortlist.recsys.store.records import UserRecord, unpack_user
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.watermark import BEGINNING
from tests.smallest import smallest

NOW = 1_900_000_000
N_USERS = 60
DRAINED = 5
SMALL = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "60",
    "LGBM_N_ESTIMATORS": "10",
    "SHORTLIST_THREADS": "1",
}


@dataclass
class Site:
    """A service whose refreshes the test runs."""

    directory: Path
    settings: Settings
    store: RedisStore
    reporter: Any
    client: TestClient
    items: Path
    nights: int = 0

    def job(self, interactions: pl.DataFrame, *, drained: bool = True) -> Job:
        """A refresh on this table."""
        self.nights += 1
        work = self.directory / f"night-{self.nights}"
        work.mkdir()
        interactions.write_parquet(work / "interactions.parquet")
        events = str(self.directory / "events") if drained else None
        tables = (str(work / "interactions.parquet"), str(self.items), None)
        params = smallest(self.settings)
        quick = replace(params, towers=replace(params.towers, rounds=1, round_steps=1))
        return Job(
            *tables, work / "work", self.settings, self.reporter, config=quick, events=events
        )

    def night(self, interactions: pl.DataFrame, *, drained: bool = True) -> None:
        """Drains and refreshes."""
        if drained:
            self.drain()
        run(self.job(interactions, drained=drained))

    def drain(self) -> None:
        """Moves the stream into files."""
        drain(EventLog(self.store), open_event_files(str(self.directory / "events")))

    def send(
        self, user: str, item: str, number: int = 0, when: int = NOW, **more: object
    ) -> dict[str, Any]:
        """Sends an event."""
        event = {"event_id": f"e{number}", "user_id": user, "item_id": item, "timestamp": when}
        event |= more
        response = self.client.post("/v1/events", json={"events": [event]})
        assert response.status_code == 200, response.text
        return response.json()

    def source(self, user: str) -> str:
        """Where the user's answer comes from."""
        return self.ask(user)["source"]

    def ask(self, user: str) -> dict[str, Any]:
        """An answer."""
        response = self.client.post("/recommend", json={"user_id": user, "k": 5})
        assert response.status_code == 200, response.text
        return response.json()

    def record(self, user: str) -> UserRecord:
        """What Redis holds of the user."""
        return unpack_user(self.store.user_record(user))


@pytest.fixture
def site(tables, tmp_path, valkey_url, namespace, reporter) -> Iterator[Site]:
    """An empty service with a small catalogue."""
    environ = SMALL | {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_GATE": "off",
    }
    environ |= {
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
        "SHORTLIST_RELEASE_CACHE_SECONDS": "0",
    }
    settings = Settings.from_env(environ)
    store = open_store(valkey_url, namespace, 1000)
    client = TestClient(create_app(settings, store, LivePath(settings), lambda: NOW + 100))
    yield Site(tmp_path, settings, store, reporter, client, tables / "items.parquet")
    store.close()


@pytest.fixture
def table(tables) -> pl.DataFrame:
    """The interactions of some users of the small world, ids as text."""
    ids = [pl.col(name).cast(pl.String) for name in ("user_id", "item_id")]
    whole = pl.read_parquet(tables / "interactions.parquet").with_columns(ids)
    return whole.filter(pl.col("user_id").is_in(users_of(whole)[:N_USERS]))


def users_of(table: pl.DataFrame) -> list[str]:
    """Every user of a table."""
    return table["user_id"].unique(maintain_order=True).to_list()


def without_oldest(table: pl.DataFrame) -> pl.DataFrame:
    """A rolling window: the oldest fifth of each history has left."""
    place = pl.int_range(pl.len()).over("user_id")
    return table.sort("user_id", "timestamp").filter(place >= pl.len().over("user_id") // 5)


def test_shrinking_table(site, table) -> None:
    """Every user is served from the list; records follow the table and take the next event."""
    site.night(table)
    window = without_oldest(table)
    site.night(window)
    assert {site.source(user) for user in users_of(table)} == {"batch"}
    user = users_of(table)[0]
    assert site.record(user).n_events == window.filter(pl.col("user_id") == user).height
    site.send(user, site.ask(user)["recommendations"][0]["item_id"])
    assert site.source(user) == "live"


def test_user_leaves_the_table(site, table) -> None:
    """Their record expires unless they come back; those in the table keep theirs."""
    site.night(table)
    user, other = users_of(table)[:2]
    rest = table.filter(pl.col("user_id") != user)
    keys = site.store.keys
    site.night(rest)
    assert site.store.redis.ttl(keys.user(user)) == -1  # a rollback would bring their list back
    site.night(rest)
    assert 0 < site.store.redis.ttl(keys.user(user)) <= NEWCOMER_SECONDS
    assert site.store.redis.ttl(keys.user(other)) == -1
    site.night(table)
    assert site.store.redis.ttl(keys.user(user)) == -1


def test_delisted_item(site, table) -> None:
    """Its users are served from their lists, and the item from none."""
    site.night(table)
    item = table["item_id"][0]
    items = pl.read_parquet(site.items).filter(pl.col("item_id").cast(pl.String) != item)
    site.items = site.directory / "items.parquet"
    items.write_parquet(site.items)
    site.night(table.filter(pl.col("item_id") != item))
    assert {site.source(user) for user in users_of(table)} == {"batch"}


@pytest.mark.parametrize("when", [NOW, 5], ids=["now", "late, with an old time"])
def test_event_until_the_next_batch(site, table, when) -> None:
    """Its user is live until a batch has learnt it, whatever its time.

    A second refresh is the same.
    """
    site.night(table)
    user, other = users_of(table)[:2]
    item = site.ask(user)["recommendations"][0]["item_id"]
    site.send(user, item, when=when)
    assert (site.source(user), site.source(other)) == ("live", "batch")
    for _ in range(2):
        site.night(table)
        assert (site.source(user), site.source(other)) == ("batch", "batch")
        assert item not in [r["item_id"] for r in site.ask(user)["recommendations"]]
        assert item in (*site.record(user).items, *site.record(user).seen)


def test_events_between_drain_and_publication_stay(site, table) -> None:
    """With a grown table, records and answers have the events, and a resend is a duplicate."""
    site.night(table)
    users = users_of(table)[:30]
    site.drain()
    more = pl.concat([table.filter(pl.col("user_id") == user).head(3) for user in users])
    grown = pl.concat([table, more.with_columns(pl.col("timestamp") + 1)])
    job = site.job(grown)
    for stage in STAGES:
        if stage == "publish":
            chosen = {user: site.ask(user)["recommendations"][0]["item_id"] for user in users}
            assert [site.send(user, item)["accepted"] for user, item in chosen.items()] == [
                1
            ] * len(users)
        run_stage(job, stage)
    for user, item in chosen.items():
        assert site.record(user).items[-1] == item
        answer = site.ask(user)
        assert (answer["source"], item in [r["item_id"] for r in answer["recommendations"]]) == (
            "live",
            False,
        )
        assert site.send(user, item)["duplicates"] == 1
    site.night(grown)
    assert {site.source(user) for user in users} == {"batch"}
    assert all(item in site.record(user).items for user, item in chosen.items())


def test_batch_without_drained_events(site, table) -> None:
    """Events after the table's latest one stay in the record and in the answers."""
    site.night(table, drained=False)
    user = users_of(table)[0]
    item = site.ask(user)["recommendations"][0]["item_id"]
    site.send(user, item)
    site.night(table, drained=False)
    assert (site.source(user), site.record(user).items[-1]) == ("live", item)
    row = {"user_id": [user], "item_id": [item], "timestamp": [NOW]}
    later = pl.concat(
        [table, pl.DataFrame(row, schema_overrides={"timestamp": table.schema["timestamp"]})],
        how="diagonal",
    )
    site.night(later, drained=False)
    assert site.record(user).items.count(item) == 1


def test_mistyped_place_of_drained_events(site, table, reporter, monkeypatch) -> None:
    """A release that lacks drained events must not claim to have learnt from them."""
    monkeypatch.setattr(publish, "drained_up_to", lambda _: DRAINED)
    job = site.job(table)
    with pytest.raises(InvalidInput, match=r"'elsewhere', which does not exist: name the place"):
        run_stage(replace(job, events="elsewhere"), "features")
    with pytest.raises(InvalidData, match="is a file: name the directory"):
        run_stage(replace(job, events=str(site.items)), "features")
    place = site.directory / "place"
    place.mkdir()
    job = replace(job, events=str(place))
    run_stage(job, "features")
    assert (job.work / WATERMARK).read_text() == str(BEGINNING)
    said = " ".join(reporter.console.file.getvalue().split())
    assert "nothing is learnt from them; if that is wrong, name the place" in said
    (place / "dead-letters-1-1.parquet").touch()  # what was drained could not be read
    run_stage(job, "features")
    assert (job.work / WATERMARK).read_text() == str(DRAINED)


def test_two_publications_are_one(site, table) -> None:
    """Publishing the same lists again doubles no event."""
    site.night(table)
    user = users_of(table)[0]
    site.send(user, site.ask(user)["recommendations"][0]["item_id"])
    before = site.record(user)
    work = site.directory / "night-1" / "work"
    publish.publish(work / "bundle", work / "lists", replace(site.settings), site.reporter)
    assert site.record(user) == before


def test_feedback_until_the_next_batch(site, table) -> None:
    """What it does at once, a refresh does by itself: the batch reads it as the API does."""
    site.night(table)
    user = users_of(table)[0]
    bought, disliked = (r["item_id"] for r in site.ask(user)["recommendations"][:2])
    site.send(user, bought, 1)
    site.send(user, bought, 2, NOW + 1, weight=-1)
    site.send(user, disliked, 3, NOW + 2, weight=-2)
    hated = site.ask("hater")["recommendations"][0]["item_id"]
    site.send("hater", hated, 4, weight=-1)
    live = read(site.record(user), EventRules())
    n_events = site.record(user).n_events
    assert (live.disliked, site.source(user)) == ({bought, disliked}, "live")
    assert [item for item in site.record(user).items if item == bought] == [bought]
    site.night(table)
    record = site.record(user)
    learnt = read(record, EventRules())
    assert ([e.event[:2] for e in learnt.events], learnt.had, learnt.disliked) == (
        [e.event[:2] for e in live.events],
        live.had,
        live.disliked,
    )
    assert (record.n_events, [each.position for each in record.negatives]) == (n_events, [0, 0])
    for each, gone in ((user, {bought, disliked}), ("hater", {hated})):
        answer = site.ask(each)
        assert answer["source"] == "batch"
        assert gone.isdisjoint(r["item_id"] for r in answer["recommendations"])
