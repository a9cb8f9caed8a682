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
from tests.chaos.service import Service

REFUSALS = (429, 503)
"""Statuses that say: not now. They come with Retry-After, and a reason."""

SERVER_ERROR = 500
NAMED = re.compile(r"\b(user|new)-\d{3}\b")
"""Every user's id here."""

PERSONAL_SOURCES = ("batch", "live", "stale")
"""Sources of answers that are made from what is known of the user."""


def reply_problem(reply: Reply) -> str:
    """What is wrong with an answer, whichever it is."""
    if reply.status in REFUSALS:
        error = (reply.body or {}).get("error", {})
        if "retry-after" not in reply.headers or not error.get("code") or not error.get("message"):
            return "a refusal without a reason or without Retry-After"
        return ""
    if reply.status >= SERVER_ERROR:
        return "an error that nobody foresaw"
    if "json" in reply.headers.get("content-type", "") and reply.raw and not _is_json(reply.raw):
        return "a body that is no JSON"
    return ""


def refusal_problem(reply: Reply) -> str:
    """Whether a failure names a user, which it may not do: it ends in logs."""
    return (
        "a refusal names a user"
        if reply.status in REFUSALS and NAMED.search(reply.raw.decode("utf-8", "replace"))
        else ""
    )


def log_problems(lines: Sequence[str]) -> list[str]:
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


def list_problem(service: Service, version: str, items: Sequence[dict[str, Any]]) -> str:
    """Whether all items of a list are of its release's catalogue, and none twice."""
    world = _world_of(service, version)
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


def _world_of(service: Service, version: str) -> Any:
    """The world of a release, by a file that each of its bundles has."""
    if version not in service.versions:
        try:
            count = service.artefacts().manifest(version)["data"]["n_items"]
        except ShortlistError:
            return None
        service.versions[version] = next(
            w.name for w in service.worlds.by_name.values() if len(w.titles) == count
        )
    return service.worlds.by_name[service.versions[version]]


def source_problem(ledger: Ledger, user: str, told: dict[str, Any]) -> str:
    """Whether an answer comes from where it may come from."""
    if user in ledger.deleted and told["source"] in PERSONAL_SOURCES:
        return "an answer from what is known of a deleted user"
    if ledger.is_known(user) and told["source"] == "popular" and not told["degraded"]:
        return "a known user is taken for a stranger, without a flag"
    return (
        "a stale answer without a flag"
        if told["source"] == "stale" and not told["degraded"]
        else ""
    )


def release_problems(service: Service, *, must: bool, users: Sequence[str] = ()) -> list[str]:
    """Whether the pointer leads to a release that is whole in Redis and among the artefacts."""
    try:
        pointer = service.store.release()
        if pointer is None:
            return ["the pointer to the serving release is gone"] if must else []
        whole = service.store.is_whole(pointer.current)
        lacking = [
            u
            for u, packed in zip(users, service.store.lists(pointer.current, users), strict=True)
            if packed is None
        ]
    except StoreUnavailable:  # a fault lasts: it is looked at when that is over
        return []
    if pointer.current not in service.artefacts().versions():
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


def event_problems(service: Service, ledger: Ledger) -> list[str]:
    """After the last night: each event that was accepted is in the next training once, and in its user's record."""
    drained = Counter(
        row
        for frame in _drained(service)
        for row in frame.select("user_id", "event_id").unique().rows()
    )
    lost = sorted(set(ledger.owed) - set(drained))
    strange = sorted(set(drained) - set(ledger.owed) - set(ledger.perhaps))
    wrong = [f"events that were accepted are in no file: {lost}"] if lost else []
    wrong += [f"events in the files that nobody was promised: {strange}"] if strange else []
    wrong += ["events still wait in the stream"] if EventLog(service.store).length() else []
    learnt = _learnt(service)
    for sent in ledger.owed.values():
        times = learnt[sent.user, sent.item, sent.time]
        if times != 1:
            wrong.append(f"{sent} is in the next training {times} times")
    return wrong + record_problems(service, ledger)


def record_problems(service: Service, ledger: Ledger) -> list[str]:
    """After a night: each event that was accepted is in its user's record, be it from before the drain or after it."""
    return [
        wrong
        for sent in ledger.owed.values()
        for wrong in _record_problems(service, sent.user, sent.item, sent.time)
    ]


def _record_problems(service: Service, user: str, item: str, when: int) -> list[str]:
    packed = service.store.user_record(user)
    record = UserRecord() if packed is None else unpack_user(packed)
    times = list(zip(record.items, record.times, strict=True)).count((item, when))
    if times == 1 or (times == 0 and item in record.seen):
        return []
    return [f"the record of {user} has {item} at {when} {times} times"]


def _drained(service: Service) -> Iterator[pl.DataFrame]:
    files = open_event_files(str(service.events))
    for name in files.names():
        yield pl.read_parquet(io.BytesIO(files.read(name)))


def _learnt(service: Service) -> Counter[tuple[str, str, int]]:
    """What a training would read now: how often each (user, item, time) is in it."""
    table = service.directory / "now.parquet"
    service.table.write_parquet(table)
    items = service.worlds.by_name["plain"].items
    loaded = data.load(
        str(table), str(items), events=str(service.events), is_forgotten=service.store.is_deleted()
    ).dataset
    events, ids = loaded.events, loaded.catalogue.ids
    columns = (events.user.tolist(), events.item.tolist(), events.time.tolist())
    return Counter(
        (loaded.user_ids[user], ids[item], when) for user, item, when in zip(*columns, strict=True)
    )


def deletion_problems(service: Service, ledger: Ledger) -> list[str]:
    """After the last night a deleted user is nowhere: no key, no value, no file, no training."""
    names = {user: user.encode() for user in ledger.deleted}
    wrong = []
    for place, content in _stored(service):
        wrong += [
            f"{user} was deleted, and is in {place}"
            for user, name in names.items()
            if name in content
        ]
    for frame in _drained(service):
        wrong += [
            f"{user} was deleted, and is in a file of events"
            for user in names
            if user in set(frame["user_id"])
        ]
    learnt = {user for user, _, _ in _learnt(service)}
    return wrong + [
        f"{user} was deleted, and is in the next training" for user in names if user in learnt
    ]


def leftover_keys(service: Service, user: str) -> list[str]:
    """Whether Redis has nothing under the name of a user who was deleted."""
    keys = service.store.redis.scan_iter(f"{service.settings.namespace}:*", count=1000)
    return [
        f"{user} was deleted, and there is {key!r}" for key in keys if f"{{{user}}}".encode() in key
    ]


def _stored(service: Service) -> Iterator[tuple[str, bytes]]:
    """Every key of the namespace with all that it holds, and every other file beside the events."""
    client = service.store.redis
    for key in client.scan_iter(f"{service.settings.namespace}:*", count=1000):
        yield f"the key {key!r}", key + b"\n" + _content(client, key)
    for path in service.events.glob("*"):
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
