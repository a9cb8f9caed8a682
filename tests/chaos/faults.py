"""What can go wrong around the service: each fault is set, lasts for some steps, and is mended."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import redis

from tests.chaos.proxy import NONE, SLOW_DOWN, Fault
from tests.chaos.service import Site

Act = Callable[[Site], None]


@dataclass(frozen=True)
class Harm:
    """How a fault is set and mended.

    redis_forgets: whether Redis loses what it holds; redis_evicts: whether it throws out what has a
    time to live; patience: seconds after which a batch that runs into it is killed.
    """

    begin: Act
    mend: Act
    redis_forgets: bool = False
    redis_evicts: bool = False
    patience: float = 60.0


def _redis(fault: Fault, patience: float = 60.0) -> Harm:
    def begin(site: Site) -> None:
        site.ground.redis.fault = fault

    def mend(site: Site) -> None:
        site.ground.redis.fault = NONE

    return Harm(begin, mend, patience=patience)


def _s3(fault: Fault, patience: float = 60.0) -> Harm:
    def begin(site: Site) -> None:
        site.ground.s3.fault = fault

    def mend(site: Site) -> None:
        site.ground.s3.fault = NONE

    return Harm(begin, mend, patience=patience)


def _configured(**options: str) -> Act:
    def begin(site: Site) -> None:
        for name, value in options.items():
            site.store.redis.config_set(name.replace("_", "-"), value)

    return begin


def _replica(serves: str) -> Act:
    """A replica of a primary that nobody can reach, which keeps what it has."""

    def begin(site: Site) -> None:
        site.store.redis.config_set("replica-serve-stale-data", serves)
        site.store.redis.execute_command("REPLICAOF", "127.0.0.1", "1")

    return begin


def _primary(site: Site) -> None:
    site.store.redis.execute_command("REPLICAOF", "NO", "ONE")


def _evicting(site: Site) -> None:
    client: redis.Redis = site.store.redis
    client.config_set("maxmemory-policy", "volatile-lru")
    client.config_set("maxmemory", max(1, client.info("memory")["used_memory"] - 10_000))


def _emptied(site: Site) -> None:
    for key in site.store.redis.scan_iter(f"{site.settings.namespace}:*"):
        site.store.redis.delete(key)


def _no_directory(site: Site) -> None:
    """The place for bundles and memories cannot be written: a file is in its way."""
    path = site.settings.bundle_dir
    if path.exists():
        path.rename(path.with_name("unpacked-before"))
    path.write_text("in the way")


def _directory_again(site: Site) -> None:
    path = site.settings.bundle_dir
    path.unlink(missing_ok=True)
    before = path.with_name("unpacked-before")
    if before.exists():
        before.rename(path)


def _cut_bundles(site: Site) -> None:
    """Every local file of a bundle is cut in half, as a crash or a full disk leaves it."""
    for path in site.settings.bundle_dir.glob("shortlist/*/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _forged_bundles(site: Site) -> None:
    """Local copies are replaced by others that are whole, with other titles."""
    for path in site.settings.bundle_dir.glob("shortlist/*"):
        other = (
            "shifted"
            if (path / "catalog.msgpack").exists()
            and b"plain: " in (path / "catalog.msgpack").read_bytes()
            else "plain"
        )
        if (path / "manifest.json").exists():
            shutil.rmtree(path)
            shutil.copytree(site.worlds.by_name[other].work / "bundle", path)


def _nothing(site: Site) -> None:
    del site


HARMS: dict[str, Harm] = {
    "Redis is away": _redis(Fault(refuse=True)),
    "Redis is silent": _redis(Fault(silent_after=0), patience=1.5),
    "Redis goes silent within a reply": _redis(Fault(silent_after=40), patience=1.5),
    "Redis is slow": _redis(Fault(delay=0.1), patience=4.0),
    "Redis drips": _redis(Fault(drip=0.05), patience=1.5),
    "a fifth of the connections to Redis are reset": _redis(Fault(reset_after=0, share=0.2)),
    "Redis resets connections within a reply": _redis(Fault(reset_after=30, share=0.5)),
    "Redis cuts replies short": _redis(Fault(cut_after=25, share=0.5)),
    "Redis is a read-only replica": Harm(_replica("yes"), _primary),
    "Redis is a replica without its primary": Harm(_replica("no"), _primary),
    "Redis is full": Harm(
        _configured(maxmemory_policy="noeviction", maxmemory="1"), _configured(maxmemory="0")
    ),
    "Redis evicts what has a time to live": Harm(
        _evicting, _configured(maxmemory="0", maxmemory_policy="noeviction"), redis_evicts=True
    ),
    "Redis came back empty": Harm(_emptied, _nothing, redis_forgets=True),
    "S3 is away": _s3(Fault(refuse=True), patience=5.0),
    "S3 answers 503": _s3(Fault(reply=SLOW_DOWN), patience=5.0),
    "S3 is silent": _s3(Fault(silent_after=0), patience=1.5),
    "S3 is slow": _s3(Fault(delay=0.3), patience=5.0),
    "S3 resets connections": _s3(Fault(reset_after=500, share=0.5), patience=5.0),
    "S3 cuts bodies short": _s3(Fault(cut_after=1500, share=0.5), patience=5.0),
    "the disk of the API cannot be written": Harm(_no_directory, _directory_again),
    "local bundles are cut short": Harm(_cut_bundles, _nothing),
    "local bundles are forged": Harm(_forged_bundles, _nothing),
}
