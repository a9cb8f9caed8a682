"""What must hold whatever happens; each check gives the violations that it finds, in words."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from shortlist.recsys import data
from shortlist.recsys.errors import ShortlistError, StoreUnavailable
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import UserRecord, unpack_user
from tests.chaos.caller import Reply
from tests.chaos.ledger import Ledger
from tests.chaos.service import Site

REFUSALS = (429, 503)
"""Statuses that say: not now. They come with Retry-After, and a reason."""

BLUNDERS = 500
NAMED = re.compile(r"\b(user|new)-\d{3}\b")
"""Every user's id here."""

OWN = ("batch", "live", "stale")
"""Sources of answers that are made from what is known of the user."""


def of_any(reply: Reply) -> str:
    """What is wrong with an answer, whichever it is."""
    if reply.status in REFUSALS:
        error = (reply.body or {}).get("error", {})
        if "retry-after" not in reply.headers or not error.get("code") or not error.get("message"):
            return "a refusal without a reason or without Retry-After"
        return ""
    if reply.status >= BLUNDERS:
        return "an error that nobody foresaw"
    if "json" in reply.headers.get("content-type", "") and reply.raw and not _is_json(reply.raw):
        return "a body that is no JSON"
    return ""


def of_refusal(reply: Reply) -> str:
    """Whether a failure names a user, which it may not do: it ends in logs."""
    return (
        "a refusal names a user"
        if reply.status in REFUSALS and NAMED.search(reply.raw.decode("utf-8", "replace"))
        else ""
    )


def of_log(lines: Sequence[str]) -> list[str]:
    """Whether the log names a user, although it is told not to."""
    return [f"the log names a user: {line}" for line in lines if NAMED.search(line)]


def _is_json(raw: bytes) -> bool:
    def refused(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(raw, parse_constant=refused)
    except ValueError:
        return False
    return True


def of_items(site: Site, version: str, items: Sequence[dict[str, Any]]) -> str:
    """Whether all items of a list are of its release's catalogue, and none twice."""
    world = _world_of(site, version)
    if world is None:
        return f"release {version} was never published"
    if any(world.titles.get(item["item_id"]) != item["title"] for item in items):
        return f"an item that is not of release {version}, whose titles are {world.name}"
    ids = [item["item_id"] for item in items]
    if len(set(ids)) != len(ids):
        return "an item twice"
    return (
        ""
        if [item["rank"] for item in items] == list(range(1, len(items) + 1))
        else "ranks that are no order"
    )


def _world_of(site: Site, version: str) -> Any:
    """The world of a release, by a file that each of its bundles has."""
    if version not in site.versions:
        try:
            count = site.artefacts().manifest(version)["data"]["n_items"]
        except ShortlistError:
            return None
        site.versions[version] = next(
            w.name for w in site.worlds.by_name.values() if len(w.titles) == count
        )
    return site.worlds.by_name[site.versions[version]]


def of_source(ledger: Ledger, user: str, told: dict[str, Any]) -> str:
    """Whether an answer comes from where it may come from."""
    if user in ledger.deleted and told["source"] in OWN:
        return "an answer from what is known of a deleted user"
    if ledger.is_known(user) and told["source"] == "popular" and not told["degraded"]:
        return "a known user is taken for a stranger, without a flag"
    return (
        "a stale answer without a flag"
        if told["source"] == "stale" and not told["degraded"]
        else ""
    )


def of_release(site: Site, *, must: bool, users: Sequence[str] = ()) -> list[str]:
    """Whether the pointer leads to a release that is whole in Redis and among the artefacts."""
    try:
        pointer = site.store.release()
        if pointer is None:
            return ["the pointer to the serving release is gone"] if must else []
        whole = site.store.is_whole(pointer.current)
        lacking = [
            u
            for u, packed in zip(users, site.store.lists(pointer.current, users), strict=True)
            if packed is None
        ]
    except StoreUnavailable:  # a fault lasts: it is looked at when that is over
        return []
    if pointer.current not in site.artefacts().versions():
        return [f"the pointer leads to {pointer.current}, which is not among the artefacts"]
    wrong = [] if whole else [f"release {pointer.current} serves, and is not whole in Redis"]
    return [
        *wrong,
        *(
            [f"release {pointer.current} serves, and lacks the lists of {lacking}"]
            if lacking
            else []
        ),
    ]


def of_events(site: Site, ledger: Ledger) -> list[str]:
    """After the last night: each event that was accepted is in the next training once, and in its user's record."""
    drained = Counter(
        row
        for frame in _drained(site)
        for row in frame.select("user_id", "event_id").unique().rows()
    )
    lost = sorted(set(ledger.owed) - set(drained))
    strange = sorted(set(drained) - set(ledger.owed) - set(ledger.perhaps))
    wrong = [f"events that were accepted are in no file: {lost}"] if lost else []
    wrong += [f"events in the files that nobody was promised: {strange}"] if strange else []
    wrong += ["events still wait in the stream"] if EventLog(site.store).length() else []
    learnt = _learnt(site)
    for sent in ledger.owed.values():
        times = learnt[sent.user, sent.item, sent.time]
        if times != 1:
            wrong.append(f"{sent} is in the next training {times} times")
    return wrong + of_records(site, ledger)


def of_records(site: Site, ledger: Ledger) -> list[str]:
    """After a night: each event that was accepted is in its user's record, be it from before the drain or after it."""
    return [
        wrong
        for sent in ledger.owed.values()
        for wrong in _of_record(site, sent.user, sent.item, sent.time)
    ]


def _of_record(site: Site, user: str, item: str, when: int) -> list[str]:
    packed = site.store.user_record(user)
    record = UserRecord() if packed is None else unpack_user(packed)
    times = list(zip(record.items, record.times, strict=True)).count((item, when))
    if times == 1 or (times == 0 and item in record.seen):
        return []
    return [f"the record of {user} has {item} at {when} {times} times"]


def _drained(site: Site) -> Iterator[pl.DataFrame]:
    files = open_event_files(str(site.events))
    for name in files.names():
        yield pl.read_parquet(io.BytesIO(files.read(name)))


def _learnt(site: Site) -> Counter[tuple[str, str, int]]:
    """What a training would read now: how often each (user, item, time) is in it."""
    table = site.directory / "now.parquet"
    site.table.write_parquet(table)
    items = site.worlds.by_name["plain"].items
    loaded = data.load(
        str(table), str(items), events=str(site.events), is_forgotten=site.store.is_deleted()
    ).dataset
    events, ids = loaded.events, loaded.catalogue.ids
    columns = (events.user.tolist(), events.item.tolist(), events.time.tolist())
    return Counter(
        (loaded.user_ids[user], ids[item], when) for user, item, when in zip(*columns, strict=True)
    )


def of_deleted(site: Site, ledger: Ledger) -> list[str]:
    """After the last night a deleted user is nowhere: no key, no value, no file, no training."""
    names = {user: user.encode() for user in ledger.deleted}
    wrong = []
    for place, content in _stored(site):
        wrong += [
            f"{user} was deleted, and is in {place}"
            for user, name in names.items()
            if name in content
        ]
    for frame in _drained(site):
        wrong += [
            f"{user} was deleted, and is in a file of events"
            for user in names
            if user in set(frame["user_id"])
        ]
    learnt = {user for user, _, _ in _learnt(site)}
    return wrong + [
        f"{user} was deleted, and is in the next training" for user in names if user in learnt
    ]


def of_nobody(site: Site, user: str) -> list[str]:
    """Whether Redis has nothing under the name of a user who was deleted."""
    keys = site.store.redis.scan_iter(f"{site.settings.namespace}:*", count=1000)
    return [
        f"{user} was deleted, and there is {key!r}" for key in keys if f"{{{user}}}".encode() in key
    ]


def _stored(site: Site) -> Iterator[tuple[str, bytes]]:
    """Every key of the namespace with all that it holds, and every other file beside the events."""
    client = site.store.redis
    for key in client.scan_iter(f"{site.settings.namespace}:*", count=1000):
        yield f"the key {key!r}", key + b"\n" + _content(client, key)
    for path in site.events.glob("*"):
        if path.is_file() and path.suffix != ".parquet":
            yield f"the file {path.name}", path.read_bytes()


def _content(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return client.get(key) or b""
        case b"hash":
            return b"\n".join(part for pair in client.hgetall(key).items() for part in pair)
        case b"set":
            return b"\n".join(client.smembers(key))
        case b"stream":
            return b"\n".join(
                value for _, fields in client.xrange(key) for value in fields.values()
            )
    return b""
