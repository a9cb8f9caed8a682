"""Tests the store's contract on a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.feedback import Happened
from shortlist.recsys.store.histories import HISTORY_LENGTH, with_events
from shortlist.recsys.store.records import (
    ItemRecord,
    ReleasePointer,
    UserRecord,
    pack_list,
    pack_user,
    unpack_user,
)
from shortlist.recsys.store.redis import MAX_LIVE_RESULTS, RedisStore, open_store
from shortlist.recsys.store.watermark import position_at

RELEASE = "20260101T000000Z-abcdef01"


@pytest.fixture
def store(valkey_url, namespace) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 1000)
    yield opened
    opened.close()


def a_list(n_items: int = 100) -> bytes:
    """A packed list of n items."""
    return pack_list(
        1, 1, 1, 500, b"\x01\x02\x03\x00" * n_items, b"\x01\x3c" * n_items, b"\x02\x3c" * n_items
    )


def test_a_new_store_knows_nothing(store) -> None:
    """None for what is not there, never an error."""
    assert store.release() is None
    assert store.read_user(RELEASE, "1") == (None, None)
    assert (store.user_record("1"), store.popular(RELEASE), store.rows_of(RELEASE, ["a"])) == (
        None,
        None,
        ([None], False),
    )
    assert (store.items(RELEASE, [1, 2]), store.items(RELEASE, []), store.blocked()) == (
        [None, None],
        [],
        frozenset(),
    )


def test_the_pointer_flips(store) -> None:
    """The last one set is the one read."""
    store.set_release(ReleasePointer("a"))
    store.set_release(ReleasePointer("b", "a"))
    assert store.release() == ReleasePointer("b", "a")


def test_lists_are_read_back_and_stay(store) -> None:
    """Each user's bytes as written, in pipelines of any length, without a time to live."""
    lists = [(f"user {n}", a_list(n % 7)) for n in range(1201)]
    assert store.write_lists(RELEASE, lists) == 1201
    assert store.lists(RELEASE, [user for user, _ in lists]) == [packed for _, packed in lists]
    assert store.redis.ttl(store.keys.list(RELEASE, "user 3")) == -1
    assert store.read_user("another release", "user 3") == (None, None)


def test_a_whole_user_is_read_at_once(store) -> None:
    """The list and the position as `read_user` gives them, and the record."""
    assert store.read_whole_user(RELEASE, "1") == (None, None, None)
    store.merge_users([("1", UserRecord(items=("a",), times=(1,), weights=(None,), n_events=1))], 0)
    store.write_lists(RELEASE, [("1", a_list(3))])
    assert store.read_whole_user(RELEASE, "1") == (a_list(3), 0, store.user_record("1"))


def record_of(*events: Happened) -> UserRecord:
    """A record of these events."""
    return with_events(UserRecord(), events)


def test_record_follows_table_and_later_events(store) -> None:
    """Rows that the table loses leave the record; events beyond the watermark stay, once each."""
    store.merge_users([("1", record_of(Happened("a", 1, None), Happened("b", 2, None)))], 0)
    stored = with_events(
        unpack_user(store.user_record("1")),
        [Happened("c", 3, 4.0, 700), Happened("d", 4, None, 900)],
    )
    store.redis.hset(store.keys.user("1"), "h", pack_user(stored))
    table = record_of(Happened("b", 2, None), Happened("c", 3, 4.0))
    assert store.merge_users([("1", table), ("2", UserRecord())], 700) == 2
    merged = unpack_user(store.user_record("1"))
    assert (merged.items, merged.positions, merged.n_events, merged.seen) == (
        ("b", "c", "d"),
        (0, 0, 900),
        3,
        (),
    )
    assert store.read_user(RELEASE, "1") == (None, 0)
    store.merge_users([("1", record_of(Happened("c", 3, 4.0), Happened("d", 4, None)))], 800)
    assert unpack_user(store.user_record("1")).items == ("c", "d")


def test_batch_merges_concurrent_events(store, monkeypatch) -> None:
    """An event between the reading and the writing of a record is in the record."""
    store.merge_users([("1", record_of(Happened("a", 1, None)))], 0)
    honest = RedisStore._merged

    def meanwhile(self: RedisStore, records: dict[str, UserRecord], *more: int) -> list[str]:
        monkeypatch.setattr(RedisStore, "_merged", honest)
        pipeline = self.redis.pipeline
        sent = with_events(record_of(Happened("a", 1, None)), [Happened("x", 9, None, 50)])

        def second_pipeline(**options: bool) -> object:
            self.redis.hset(self.keys.user("1"), "h", pack_user(sent))
            return pipeline(**options)

        pipelines = iter([pipeline, second_pipeline])

        def next_pipeline(**options: bool) -> object:
            return next(pipelines, pipeline)(**options)

        monkeypatch.setattr(self.redis, "pipeline", next_pipeline)
        return honest(self, records, *more)

    monkeypatch.setattr(RedisStore, "_merged", meanwhile)
    assert store.merge_users([("1", record_of(Happened("b", 2, None)))], 0) == 1
    assert unpack_user(store.user_record("1")).items == ("b", "x")


def test_unreadable_record_is_written_again(store) -> None:
    """The batch's takes its place."""
    store.redis.hset(store.keys.user("1"), "h", b"\xc1")
    store.merge_users([("1", record_of(Happened("a", 1, None)))], 0)
    assert unpack_user(store.user_record("1")).items == ("a",)


def test_partial_catalogue_proves_nothing(store) -> None:
    """An absent row says that an item is unknown only while both hashes are there."""
    store.write_items(RELEASE, enumerate([ItemRecord("x", "X"), ItemRecord("y", "Y")]))
    assert store.rows_of(RELEASE, ["y", "z"]) == ([1, None], True)
    assert not store.is_whole(RELEASE)
    store.write_popular(RELEASE, a_list())
    assert store.is_whole(RELEASE)
    store.redis.delete(store.keys.items(RELEASE))
    assert store.rows_of(RELEASE, ["z"]) == ([None], False)
    assert not store.is_whole(RELEASE)
    assert store.rows_of("another", ["z"]) == ([None], False)


def test_half_a_catalogue_proves_nothing(store) -> None:
    """While it is written again, too: the number of its items comes last."""
    items = [(row, ItemRecord(f"i{row}", "Title")) for row in range(3)]
    store.write_items(RELEASE, items)
    store.write_popular(RELEASE, a_list())

    def interrupted() -> Iterator[tuple[int, ItemRecord]]:
        yield from items[:1]
        assert not store.is_whole(RELEASE)
        assert store.rows_of(RELEASE, ["i2", "z"]) == ([2, None], False)
        yield from items[1:]

    store.write_items(RELEASE, interrupted())
    assert store.is_whole(RELEASE)


def test_overtaken_batch_writes_no_record(store) -> None:
    """One whose lease is older than that of the batch before it, however late it comes."""
    store.merge_users([("1", record_of(Happened("new", 2, None)))], 900, 12)
    store.merge_users([("1", record_of(Happened("old", 1, None)))], 900, 9)
    assert unpack_user(store.user_record("1")).items == ("new",)


def test_what_left_the_window_stays_seen(store) -> None:
    """A newer event with an old time goes straight to the seen items; no publication loses it."""
    many = record_of(*(Happened(f"i{n}", 1000 + n, None) for n in range(HISTORY_LENGTH)))
    store.merge_users([("1", many)], 0)
    sent = with_events(unpack_user(store.user_record("1")), [Happened("late", 5, None, 700)])
    assert "late" not in sent.items
    store.redis.hset(store.keys.user("1"), "h", pack_user(sent))
    store.merge_users([("1", many)], 600)
    assert "late" in unpack_user(store.user_record("1")).seen
    store.merge_users([("1", many)], 700)
    assert unpack_user(store.user_record("1")).seen == ()


def test_unreadable_position_is_mended(store) -> None:
    """By the next refresh, or the next event."""
    store.redis.hset(store.keys.user("1"), "s", b"\xff")
    assert EventLog(store).known(["1"], 1)[0]["1"].position == 0
    store.merge_users([("1", record_of(Happened("a", 1, None)))], 900)
    assert store.read_user(RELEASE, "1")[1] == 0


def test_user_key_of_another_type(store) -> None:
    """Other users are served, and a deletion or a refresh repairs this one."""
    for remove in (
        lambda: EventLog(store).known(["1", "2"], 1),
        lambda: AdminStore(store).delete_user("1", 0),
    ):
        store.redis.set(store.keys.user("1"), "text")
        remove()
    store.redis.set(store.keys.user("1"), "text")
    assert (
        store.merge_users([("1", record_of(Happened("a", 1, None))), ("2", UserRecord())], 0) == 2
    )
    assert unpack_user(store.user_record("1")).items == ("a",)


def test_unknown_user_expires(store) -> None:
    """A rollback must not find the records of its users gone; those of deleted users go at once."""
    store.write_lists("before", [("1", a_list())])
    store.merge_users([(user, UserRecord()) for user in ("1", "2", "3")], 0)
    store.redis.hset(store.keys.deleted(), store.keys.digest("3"), 1)
    assert store.retire_unknown(["now", "before"], 600) == 2
    assert (store.redis.ttl(store.keys.user("1")), store.user_record("3")) == (-1, None)
    assert 0 < store.redis.ttl(store.keys.user("2")) <= 600


def test_retired_release_can_be_restored(store) -> None:
    """All of its keys, and none of another release, whose name may look like a pattern."""
    for version in ("v1", "v*"):
        store.write_lists(version, [("1", a_list()), ("2", a_list())])
        store.write_items(version, [(0, ItemRecord("x", "X"))])
        store.write_popular(version, a_list())
    assert (store.retire("v*", 900), store.is_retiring("v*"), store.is_retiring("v1")) == (
        5,
        True,
        False,
    )
    assert store.redis.ttl(store.keys.list("v1", "1")) == -1
    assert 0 < store.redis.ttl(store.keys.list("v*", "1")) <= 900
    assert store.restore("v*")
    assert (store.is_retiring("v*"), store.redis.ttl(store.keys.list("v*", "2"))) == (False, -1)


def test_items_by_row_and_id(store) -> None:
    """A record for each known row, None for the others; a row for each known id."""
    items = [ItemRecord("x", "X", ("c",)), ItemRecord("y", "Y")]
    store.write_items(RELEASE, enumerate(items))
    assert store.items(RELEASE, [1, 5, 0]) == [items[1], None, items[0]]
    assert store.rows_of(RELEASE, ["y", "z"])[0] == [1, None]


def write_live(store: RedisStore, digest: str, packed: bytes = b"bytes") -> bool:
    """Caches a result of the stored record of user 1."""
    return store.write_live(RELEASE, "1", digest, packed, 60, store.user_record("1") or b"")


def test_live_result_is_keyed_by_inputs(store) -> None:
    """Another release, user or digest finds nothing."""
    store.merge_users([("1", UserRecord())], 0)
    assert write_live(store, "digest")
    assert store.live(RELEASE, "1", "digest") == b"bytes"
    assert {
        store.live("r", "1", "digest"),
        store.live(RELEASE, "2", "digest"),
        store.live(RELEASE, "1", "d"),
    } == {None}
    assert 0 < store.redis.ttl(store.keys.live(RELEASE, "1")) <= 60


def test_live_result_of_another_record(store) -> None:
    """A user who was deleted, or did something, while the result was computed."""
    store.merge_users([("1", UserRecord())], 0)
    old = store.user_record("1")
    store.merge_users([("1", record_of(Happened("a", 1, None)))], 0)
    assert not store.write_live(RELEASE, "1", "digest", b"bytes", 60, old)
    old = store.user_record("1")
    AdminStore(store).delete_user("1", 0)
    assert not store.write_live(RELEASE, "1", "digest", b"bytes", 60, old)
    assert store.live(RELEASE, "1", "digest") is None


def test_live_results_are_bounded(store) -> None:
    """Odd questions about one user do not fill the memory."""
    store.merge_users([("1", UserRecord())], 0)
    for number in range(3 * MAX_LIVE_RESULTS):
        write_live(store, f"digest {number}")
    assert 0 < store.redis.hlen(store.keys.live(RELEASE, "1")) <= MAX_LIVE_RESULTS


def test_one_caller_computes_live_result(store) -> None:
    """The first caller claims it, other results do not wait, and writing it ends the claim."""
    store.merge_users([("1", UserRecord())], 0)
    assert store.live_or_claim(RELEASE, "1", "digest", 60_000) == (None, True)
    assert store.live_or_claim(RELEASE, "1", "digest", 60_000) == (None, False)
    assert store.live_or_claim(RELEASE, "1", "other", 60_000) == (None, True)
    write_live(store, "digest")
    assert store.live_or_claim(RELEASE, "1", "digest", 60_000)[0] == b"bytes"


def test_unreadable_values_cost_themselves(store) -> None:
    """A blocked item that is no text, an item, a row and a position: the others are read."""
    store.redis.sadd(store.keys.blocked(), b"\xff", "a")
    assert store.blocked() == frozenset({"a"})
    store.write_items(RELEASE, enumerate([ItemRecord("x", "X"), ItemRecord("y", "Y")]))
    store.redis.hset(store.keys.items(RELEASE), "0", b"\xc1")
    store.redis.hset(store.keys.rows(RELEASE), "x", b"no number")
    assert store.items(RELEASE, [0, 1]) == [None, ItemRecord("y", "Y")]
    assert store.rows_of(RELEASE, ["x", "y"])[0] == [None, 1]
    store.redis.hset(store.keys.user("1"), "s", b"\xff")
    assert store.read_user(RELEASE, "1")[1] > position_at(4e9)
    store.redis.hset(store.keys.deleted(), b"\xff", b"\xff")
    assert not store.is_deleted()("1")
    store.redis.hset(store.keys.releases(), mapping={b"\xff": b"\xc1", RELEASE: b"\xc1"})
    store.write_popular(RELEASE, a_list())
    assert AdminStore(store).releases() == []
    assert AdminStore(store).versions() == [RELEASE]


def test_every_key_starts_with_the_namespace(store, valkey_url) -> None:
    """A shared server's other keys are left alone."""
    before = set(store.redis.scan_iter("*"))
    store.set_release(ReleasePointer("a"))
    store.write_lists(RELEASE, [("1", a_list())])
    store.merge_users([("1", UserRecord())], 0)
    store.write_items(RELEASE, [(0, ItemRecord("x", "X"))])
    store.write_popular(RELEASE, a_list())
    write_live(store, "d", b"")
    new = set(store.redis.scan_iter("*")) - before
    assert len(new) == 7
    assert all(key.decode().startswith(f"{store.keys.namespace}:") for key in new)


def test_user_keys_share_a_slot(store) -> None:
    """List, record and live results carry the same hash tag."""
    keys = store.keys
    for key in (keys.list("v", "a b"), keys.user("a b"), keys.live("v", "a b"), keys.claim("a b")):
        assert key[key.index("{") : key.index("}") + 1] == "{a b}"


def test_memory_of_a_list(store) -> None:
    """All that a user's list costs: key, value and the server's own bookkeeping."""
    base = store.redis.info("memory")["used_memory"]
    n = 2000
    store.write_lists(RELEASE, ((f"{user}", a_list()) for user in range(n)))
    assert (store.redis.info("memory")["used_memory"] - base) / n <= 1200


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nonexistent/valkey.sock"])
def test_missing_server_is_unavailable(url) -> None:
    """One error for every way in which a server can be away, with the remedy."""
    with pytest.raises(StoreUnavailable, match="check REDIS_URL"):
        open_store(url, "test", 200).read_user(RELEASE, "1")
