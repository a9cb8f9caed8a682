"""Live answers leave counts of the features they used, and `shortlist skew` tells whether those are the training's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from shortlist.batch.cli import main
from shortlist.batch.served_skew import served_skew, tallies, who_asks
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import ANSWERS, SECONDS, CounterBuffer, InBackground
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.sampler import MAX_WAITING, Sampler
from shortlist.recsys.errors import CorruptArtefact, InvalidData, InvalidInput
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
    """Has live answers given to users, in a process that samples all of them, and sends its counts."""
    settings, store = own

    def served(users: Iterable[str], share: float = 1.0, **more: object) -> CounterBuffer:
        metrics = Metrics()
        counts = CounterBuffer(CountLog(store), metrics, hand_over=lambda _send: None)
        sampler = Sampler(share, hash_of(store), np.random.default_rng(5))
        counts.add_source(sampler.take)
        live = LivePath(settings, sampler=sampler)
        client = TestClient(create_app(settings, store, live, metrics=metrics, counters=counts))
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


def test_the_users_of_the_training_served_live_are_no_skew(own, published, serve) -> None:
    """One row of each of the same users, drawn anew: nothing is flagged, and all are counted."""
    serve(known(published))
    served = served_skew(own[0])
    assert (served.version, served.skew.flagged_features, served.aside) == (
        published.version,
        (),
        0,
    )
    assert (served.skew.n_serving, served.lengths) == (
        len(known(published)),
        pytest.approx(0, abs=1e-4),
    )


def test_a_feature_that_is_served_otherwise_is_flagged(own, published, serve, monkeypatch) -> None:
    """And only that one."""
    shift(monkeypatch, "popularity")
    serve(known(published))
    flagged = served_skew(own[0]).skew.flagged_features
    assert flagged == ("popularity",)


def test_the_command_prints_a_table_and_ends_with_1_for_skew(
    own, published, serve, monkeypatch
) -> None:
    """0 while the features are those of the training, 1 once they are not, 2 before anything was served."""
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


def test_what_training_does_not_have_is_not_sampled(own, published, serve) -> None:
    """Answers to users without a history, of one category only, from the list, or from the cache."""
    user = known(published)[0]
    category = published.dataset.catalogue.categories[0][0]
    serve(["nobody"], attributes={"age": 30})
    serve([user], categories=[category])
    serve([user], use_cache=True)
    with pytest.raises(InvalidData, match="no served rows"):
        served_skew(own[0])


def test_a_session_is_sampled_and_told_apart_if_training_has_none_as_short(
    own, published, serve
) -> None:
    """Its history is all that there is of the user, as in training; of one event, where nobody there has so few, it is aside."""
    items = published.dataset.catalogue.ids
    least = int(published.dataset.events.offsets()[1:].min())
    serve(["fresh"], history=list(items[:1]))
    with pytest.raises(InvalidInput, match="all 1 sampled rows are of users with fewer events"):
        served_skew(own[0])
    serve(["older"], history=list(items[: least + 50]))
    told = served_skew(own[0])
    assert (told.skew.n_serving, told.aside) == (1, 1)
    assert "1 rows of shorter histories" in who_asks(told)


def test_no_answer_is_sampled_at_share_nought(own, published, serve) -> None:
    """SHORTLIST_SKEW_SHARE=0 counts nothing, and Redis holds no hash."""
    serve(known(published)[:5], share=0.0)
    assert own[1].redis.exists(own[1].keys.skew(published.version)) == 0


def test_the_counts_expire_and_name_no_user(own, published, serve) -> None:
    """The hash has fields of features and cells only, and lives as long as it was told from its first count on."""
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


def test_no_more_rows_wait_than_the_most(own, published) -> None:
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


def test_counts_of_no_cell_are_an_error() -> None:
    """Such as those of a release that another code made under the same name."""
    trained = skew.histograms({"a": np.arange(40.0)})
    assert [one["a"][0] for one in tallies([trained, trained], {"1:a:0": 3})] == [0, 3]
    for field in ("0:b:0", "0:a:99", "0:a:x", "a:0", "2:a:0", "0:a", ""):
        with pytest.raises(CorruptArtefact, match="no cell"):
            tallies([trained, trained], {field: 1})


def test_without_a_release_the_remedy_is_told(own, namespace) -> None:
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


def test_counts_that_redis_does_not_take_wait_and_are_counted(own, gone) -> None:
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
def test_a_count_that_is_none_costs_itself(own, junk) -> None:
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


def test_a_key_that_is_no_hash_costs_itself(own) -> None:
    """As a field does."""
    own[1].redis.set(own[1].keys.skew("v1"), b"x")
    counts = CounterBuffer(CountLog(own[1]), Metrics())
    counts.add(Hash(own[1].keys.skew("v1"), TTL), "a:0")
    counts.add(Hash(own[1].keys.skew("v2"), TTL), "a:0")
    for _ in range(2):
        counts.flush()
    assert CountLog(own[1]).read(own[1].keys.skew("v2")) == {"a:0": 1}


def test_counts_are_sent_after_the_first_answer_and_then_now_and_then(own) -> None:
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
