"""Tests `shortlist skew` on the features of live answers.

Live answers leave counts of their features, which it compares with training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from shortlist.batch.cli import main
from shortlist.batch.served_skew import history_lengths_note, served_skew, tallies
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import ANSWERS, SECONDS, CounterBuffer, InBackground
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.sampler import MAX_WAITING, Sampler
from shortlist.recsys.errors import InvalidData, InvalidInput, UnreadableRecord
from shortlist.recsys.models import pipeline
from shortlist.recsys.models.features import FEATURES, Candidates, ItemTable
from shortlist.recsys.models.interactions import Float32, UserStates
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.store.counts import CountLog, Hash
from shortlist.recsys.store.redis import RedisStore, open_store

TTL = 1000


def hash_of(store: RedisStore) -> Callable[[str], Hash]:
    """Where the counts of a release go."""
    return lambda version: Hash(store.keys.skew(version), TTL)


@pytest.fixture
def serve(own) -> Callable[..., CounterBuffer]:
    """Answers users live in a process that samples every answer, and sends its counts."""
    settings, store = own

    def served(
        users: Iterable[str], share: float = 1.0, preview: str = "0", **more: object
    ) -> CounterBuffer:
        metrics = Metrics()
        counts = CounterBuffer(CountLog(store), metrics, hand_over=lambda _send: None)
        sampler = Sampler(share, hash_of(store), np.random.default_rng(5))
        counts.add_source(sampler.take)
        live = LivePath(settings, sampler=sampler)
        app = create_app(settings, store, live, metrics=metrics, counters=counts)
        client = TestClient(app, headers={"X-Shortlist-Preview": preview})
        for at, user in enumerate(users):
            assert (
                client.post(
                    "/recommend", json={"user_id": user, "k": 5, "use_cache": False} | more
                ).status_code
                == 200
            )
            if at % MAX_WAITING == MAX_WAITING - 1:
                counts.flush()
        counts.flush()
        return counts

    return served


def known(published) -> list[str]:
    """Every user with an event."""
    events = published.dataset.events
    return [published.dataset.user_ids[user] for user in np.unique(events.user).tolist()]


def shift(monkeypatch, name: str) -> None:
    """From now on a feature is served three training deviations too high."""
    made, at = pipeline.features, list(FEATURES).index(name)

    def broken(states: UserStates, candidates: Candidates, table: ItemTable) -> Float32:
        rows = made(states, candidates, table)
        rows[:, at] += 3 * rows[:, at].std() + 1
        return rows

    monkeypatch.setattr(pipeline, "features", broken)


def test_training_users_show_no_skew(own, published, serve) -> None:
    """One new row of each of the same users: nothing is flagged, and all are counted."""
    serve(known(published))
    served = served_skew(own[0])
    assert (served.version, served.skew.flagged_features, served.below_training_range) == (
        published.version,
        (),
        0,
    )
    assert (served.skew.n_serving, served.lengths) == (
        len(known(published)),
        pytest.approx(0, abs=1e-4),
    )


def test_a_changed_feature_is_flagged(own, published, serve, monkeypatch) -> None:
    """And only that one."""
    shift(monkeypatch, "popularity")
    serve(known(published))
    flagged = served_skew(own[0]).skew.flagged_features
    assert flagged == ("popularity",)


def test_the_command_exits_1_for_skew(own, published, serve, monkeypatch) -> None:
    """0 for the training's features, 1 for others, 2 before anything was served."""
    environ = published.environ | {"SHORTLIST_NAMESPACE": own[0].namespace}
    before = CliRunner().invoke(main, ["skew"], env=environ)
    assert (before.exit_code, "wait for some" in before.output) == (2, True)
    serve(known(published))
    good = CliRunner().invoke(main, ["skew"], env=environ)
    assert (good.exit_code, good.output.splitlines()[-1]) == (0, "no skew")
    assert all(name in good.output for name in FEATURES if name != strata.COLUMN)
    assert "who asks" in good.output
    shift(monkeypatch, "popularity")
    serve(known(published) * 2)
    bad = CliRunner().invoke(main, ["skew", "--release", published.version], env=environ)
    assert (bad.exit_code, bad.output.splitlines()[-1]) == (1, "skew in popularity")


def test_answers_unlike_training_are_not_sampled(own, published, serve) -> None:
    """Without a history, of one category, from the list, from the cache, or shown to no user."""
    user = known(published)[0]
    category = published.dataset.catalogue.categories[0][0]
    serve(["nobody"], attributes={"age": 30})
    serve([user], categories=[category])
    serve([user], use_cache=True)
    serve([user], preview="1")
    with pytest.raises(InvalidData, match="no served rows"):
        served_skew(own[0])


def test_short_sessions_are_counted_apart(own, published, serve) -> None:
    """A session shorter than any training history is counted apart from the strata.

    Its history is all that there is of the user, as in training.
    """
    items = published.dataset.catalogue.ids
    least = int(published.dataset.events.offsets()[1:].min())
    serve(["fresh"], history=list(items[:1]))
    with pytest.raises(InvalidInput, match="all 1 sampled rows are of users with fewer events"):
        served_skew(own[0])
    serve(["older"], history=list(items[: least + 50]))
    served = served_skew(own[0])
    assert (served.skew.n_serving, served.below_training_range) == (1, 1)
    assert "1 rows of shorter histories" in history_lengths_note(served)


def test_share_zero_samples_nothing(own, published, serve) -> None:
    """SHORTLIST_SKEW_SHARE=0 counts nothing, and Redis holds no hash."""
    serve(known(published)[:5], share=0.0)
    assert own[1].redis.exists(own[1].keys.skew(published.version)) == 0


def test_counts_expire_and_name_nobody(own, published, serve) -> None:
    """The hash has features and cells only, and a time to live from its first count on."""
    _, store = own
    serve(known(published)[:3])
    store.redis.expire(store.keys.skew(published.version), 500)
    serve(known(published)[:3])
    assert 0 < store.redis.ttl(store.keys.skew(published.version)) <= 500
    fields = {
        field.decode().rpartition(":")[0]
        for field in store.redis.hkeys(store.keys.skew(published.version))
    }
    assert fields == {f"0:{name}" for name in FEATURES if name != strata.COLUMN}


def test_waiting_rows_are_bounded(own, published) -> None:
    """However many answers there are between two sendings."""
    sampler = Sampler(1.0, hash_of(own[1]))
    rows = np.zeros((4, len(FEATURES)), np.float32)
    trained = strata.split({name: np.arange(40.0) for name in FEATURES})
    for _ in range(MAX_WAITING + 10):
        sampler.offer("v1", trained, rows)
    sampler.offer("v1", trained, rows[:0])
    (fields,) = sampler.take().values()
    assert sum(fields.values()) == MAX_WAITING * (len(FEATURES) - 1)
    assert sampler.take() == {}


def test_unknown_cells_are_an_error() -> None:
    """Such as those of a release that another code made under the same name."""
    trained = skew.histograms({"a": np.arange(40.0)})
    assert [one["a"][0] for one in tallies([trained, trained], {"1:a:0": 3})] == [0, 3]
    for field in ("0:b:0", "0:a:99", "0:a:x", "a:0", "2:a:0", "0:a", ""):
        with pytest.raises(UnreadableRecord, match="no cell"):
            tallies([trained, trained], {field: 1})


def test_no_release_names_the_remedy(own, namespace) -> None:
    """There is nothing to compare with before the first."""
    with pytest.raises(InvalidInput, match="no release has been published"):
        served_skew(replace(own[0], namespace=f"{namespace}-empty"))


@pytest.fixture
def gone(namespace) -> Iterator[RedisStore]:
    """A store that nobody answers for."""
    store = open_store("redis://127.0.0.1:1", namespace, 50)
    yield store
    store.close()


def failures(metrics: Metrics) -> str:
    """The metric's line."""
    return next(
        line
        for line in metrics.text().splitlines()
        if line.startswith("shortlist_tally_failures_total")
    )


def test_counts_wait_for_redis(own, gone) -> None:
    """Nothing is raised, and the next sending has them."""
    metrics = Metrics()
    counts = CounterBuffer(CountLog(gone), metrics)
    counts.add(Hash(own[1].keys.skew("v1"), TTL), "a:0", 2)
    counts.flush()
    assert failures(metrics).endswith(" 1.0")
    counts._log = CountLog(own[1])
    counts.add(Hash(own[1].keys.skew("v1"), TTL), "a:0")
    counts.flush()
    assert CountLog(own[1]).read(own[1].keys.skew("v1")) == {"a:0": 3}
    assert failures(metrics).endswith(" 1.0")


@pytest.mark.parametrize("junk", [b"", b"1.5", b"x", b"9223372036854775807", b"\xff" * 30])
def test_an_unreadable_count_is_skipped(own, junk) -> None:
    """The others are added once, read, and not kept for another time."""
    key = own[1].keys.skew("v1")
    own[1].redis.hset(key, mapping={"a:0": junk, b"\xff:1": 7})
    metrics = Metrics()
    counts = CounterBuffer(CountLog(own[1]), metrics)
    for _ in range(2):
        counts.add(Hash(key, TTL), "a:0")
        counts.add(Hash(key, TTL), "b:0")
        counts.flush()
    assert CountLog(own[1]).read(key).get("b:0") == 2
    assert own[1].redis.hget(key, "a:0") == junk
    assert failures(metrics).endswith(" 0.0")


def test_keys_of_another_type_are_skipped(own) -> None:
    """As a field does."""
    own[1].redis.set(own[1].keys.skew("v1"), b"x")
    counts = CounterBuffer(CountLog(own[1]), Metrics())
    counts.add(Hash(own[1].keys.skew("v1"), TTL), "a:0")
    counts.add(Hash(own[1].keys.skew("v2"), TTL), "a:0")
    for _ in range(2):
        counts.flush()
    assert CountLog(own[1]).read(own[1].keys.skew("v2")) == {"a:0": 1}


def test_when_counts_are_sent(own) -> None:
    """Not before SECONDS have passed or ANSWERS were given."""
    now, sent = [0.0], []
    counts = CounterBuffer(
        CountLog(own[1]),
        Metrics(),
        clock=lambda: now[0],
        hand_over=lambda _send: sent.append(now[0]),
    )
    for at in (0.0, 1.0, SECONDS - 1, SECONDS, SECONDS + 1):
        now[0] = at
        counts.maybe_flush()
    assert sent == [0.0, SECONDS]
    for _ in range(ANSWERS):
        counts.maybe_flush()
    assert sent == [0.0, SECONDS, SECONDS + 1]


def test_another_thread_sends(own) -> None:
    """So that no answer waits for it."""
    hand_over = InBackground()
    counts = CounterBuffer(CountLog(own[1]), Metrics(), hand_over=hand_over)
    counts.add(Hash(own[1].keys.skew("v1"), TTL), "a:0")
    counts.maybe_flush()
    assert hand_over._pool is not None
    hand_over._pool.shutdown(wait=True)
    assert CountLog(own[1]).read(own[1].keys.skew("v1")) == {"a:0": 1}
