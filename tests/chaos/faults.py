"""Lists the faults that a scenario injects.

Each has a function that begins it and one that ends it. To add a fault, add an entry to `FAULTS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import redis

from tests.chaos.proxy import NONE, SLOW_DOWN, ConnectionFault
from tests.chaos.service import Service

Action = Callable[[Service], None]


@dataclass(frozen=True)
class Fault:
    """A fault: functions that begin and end it.

    redis_forgets: Redis loses what it holds; redis_evicts: it evicts keys with a time to live;
    patience: seconds after which a batch that runs into the fault is killed.
    """

    begin: Action
    end: Action
    redis_forgets: bool = False
    redis_evicts: bool = False
    patience: float = 60.0


def _redis(fault: ConnectionFault, patience: float = 60.0) -> Fault:
    def begin(service: Service) -> None:
        service.backends.redis.fault = fault

    def end(service: Service) -> None:
        service.backends.redis.fault = NONE

    return Fault(begin, end, patience=patience)


def _s3(fault: ConnectionFault, patience: float = 60.0) -> Fault:
    def begin(service: Service) -> None:
        service.backends.s3.fault = fault

    def end(service: Service) -> None:
        service.backends.s3.fault = NONE

    return Fault(begin, end, patience=patience)


def _configured(**options: str) -> Action:
    def begin(service: Service) -> None:
        for name, value in options.items():
            service.store.redis.config_set(name.replace("_", "-"), value)

    return begin


def _replica(serves: str) -> Action:
    """Redis becomes a replica of an unreachable primary, and keeps its data."""

    def begin(service: Service) -> None:
        service.store.redis.config_set("replica-serve-stale-data", serves)
        service.store.redis.execute_command("REPLICAOF", "127.0.0.1", "1")

    return begin


def _primary(service: Service) -> None:
    service.store.redis.execute_command("REPLICAOF", "NO", "ONE")


def _evicting(service: Service) -> None:
    client: redis.Redis = service.store.redis
    client.config_set("maxmemory-policy", "volatile-lru")
    # Slightly less than is used, so that eviction begins at once.
    client.config_set("maxmemory", max(1, client.info("memory")["used_memory"] - 10_000))


def _emptied(service: Service) -> None:
    for key in service.store.redis.scan_iter(f"{service.settings.namespace}:*"):
        service.store.redis.delete(key)


def _no_directory(service: Service) -> None:
    """Puts a file where the directory for bundles and cached lists should be."""
    path = service.settings.bundle_dir
    if path.exists():
        path.rename(path.with_name("unpacked-before"))
    path.write_text("in the way")


def _directory_again(service: Service) -> None:
    path = service.settings.bundle_dir
    path.unlink(missing_ok=True)
    before = path.with_name("unpacked-before")
    if before.exists():
        before.rename(path)


def _cut_bundles(service: Service) -> None:
    """Cuts every local file of a bundle in half."""
    for path in service.settings.bundle_dir.glob("shortlist/*/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _forged_bundles(service: Service) -> None:
    """Replaces local copies by intact bundles of the other world, with other titles."""
    for path in service.settings.bundle_dir.glob("shortlist/*"):
        catalogue = path / "catalog.msgpack"
        is_plain = catalogue.exists() and b"plain: " in catalogue.read_bytes()
        other = service.worlds.by_name["shifted" if is_plain else "plain"]
        if (path / "manifest.json").exists():
            shutil.rmtree(path)
            shutil.copytree(other.work / "bundle", path)


def _nothing(service: Service) -> None:
    del service


FAULTS: dict[str, Fault] = {
    "Redis is away": _redis(ConnectionFault(refuse=True)),
    "Redis is silent": _redis(ConnectionFault(silent_after=0), patience=1.5),
    "Redis goes silent within a reply": _redis(ConnectionFault(silent_after=40), patience=1.5),
    "Redis is slow": _redis(ConnectionFault(delay=0.1), patience=4.0),
    "Redis drips": _redis(ConnectionFault(drip=0.05), patience=1.5),
    "a fifth of the connections to Redis are reset": _redis(
        ConnectionFault(reset_after=0, share=0.2)
    ),
    "Redis resets connections within a reply": _redis(ConnectionFault(reset_after=30, share=0.5)),
    "Redis cuts replies short": _redis(ConnectionFault(cut_after=25, share=0.5)),
    "Redis is a read-only replica": Fault(_replica("yes"), _primary),
    "Redis is a replica without its primary": Fault(_replica("no"), _primary),
    "Redis is full": Fault(
        _configured(maxmemory_policy="noeviction", maxmemory="1"), _configured(maxmemory="0")
    ),
    "Redis evicts what has a time to live": Fault(
        _evicting, _configured(maxmemory="0", maxmemory_policy="noeviction"), redis_evicts=True
    ),
    "Redis came back empty": Fault(_emptied, _nothing, redis_forgets=True),
    "S3 is away": _s3(ConnectionFault(refuse=True), patience=5.0),
    "S3 answers 503": _s3(ConnectionFault(reply=SLOW_DOWN), patience=5.0),
    "S3 is silent": _s3(ConnectionFault(silent_after=0), patience=1.5),
    "S3 is slow": _s3(ConnectionFault(delay=0.3), patience=5.0),
    "S3 resets connections": _s3(ConnectionFault(reset_after=500, share=0.5), patience=5.0),
    "S3 cuts bodies short": _s3(ConnectionFault(cut_after=1500, share=0.5), patience=5.0),
    "the disk of the API cannot be written": Fault(_no_directory, _directory_again),
    "local bundles are cut short": Fault(_cut_bundles, _nothing),
    "local bundles are forged": Fault(_forged_bundles, _nothing),
}
