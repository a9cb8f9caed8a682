"""Examines what Shortlist stands on, and names remedies.

Each check looks at one thing and waits two seconds at most. A check that depends on another one,
as the release does on Redis, says so instead of repeating its fault.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from shortlist.batch.batch_store import batch_store
from shortlist.batch.free_memory import free_memory
from shortlist.recsys.errors import InvalidInput, ShortlistError
from shortlist.recsys.settings import Settings, misspelt
from shortlist.recsys.store import s3
from shortlist.recsys.store.artefacts import existing_artefacts
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import server_policy
from shortlist.recsys.store.redis_url import RedisAddress, parse_redis_url
from shortlist.recsys.version import DISTRIBUTION, installed_version

OK, WARNING, BAD = "ok", "warning", "bad"
"""States: as it should be; works, but look at it; something will fail."""

TIMEOUT_MS = 2000
"""Longest wait for an answer of Redis or AWS."""

LEAST_MEMORY = 1 << 30
"""Bytes to train on MovieLens 100K with room to spare."""

LEAST_DISK = 1 << 30
"""Bytes for the work directory and some releases; a tenth of it is too little for one."""

OLD_DAYS = 7.0
"""Age of a bundle from which new items and users are missed."""

CLOCK_SECONDS = 5.0
"""Difference of clocks that list ages and watermarks tolerate."""

_EXTRA = re.compile(r"""extra\s*==\s*['"](\w+)['"]""")
_FLOOR = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*>=\s*([\d.]+)")
_NEEDED = ("", "serving", "batch", "local")
"""Extras without which a command of a laptop is missing; the others are a matter of taste."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; remedy: what to do, "" where nothing is."""

    check: str
    state: str
    found: str
    remedy: str = ""


def examine(environ: Mapping[str, str], port: int, work: Path) -> list[Finding]:
    """All findings, in the order in which faults depend on each other.

    port: where `shortlist serve` would listen; work: the work directory.
    """
    findings = [_python(), _packages(), _machine()]
    try:
        settings = Settings.from_env(environ)
    except InvalidInput as error:
        return [*findings, Finding("settings", BAD, *_parts(error)), _port(port)]
    findings += [_settings(environ), *of_service(settings)]
    return [*findings, _port(port), _disk(settings, work), _aws(settings)]


def of_service(settings: Settings) -> list[Finding]:
    """Redis, the clock, the artefacts, the release and its bundle."""
    store_found, clock, pointer, is_whole = _store(settings)
    place = _artefacts(settings)
    findings = [store_found, clock, place]
    if store_found.state == BAD:
        findings.append(Finding("release", WARNING, "not known without Redis", "mend Redis first"))
        return findings
    findings.append(_release(pointer, is_whole=is_whole))
    if pointer is not None:
        findings.append(_bundle(settings, pointer.current, time.time()))
    return findings


def _parts(error: ShortlistError) -> tuple[str, str]:
    """What an error says, and its remedy, which stands last in every message."""
    said, _, remedy = str(error).rpartition(": ")
    return said, remedy


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Finding("python", WARNING, found, "Shortlist is tested on Linux: use it, or WSL")
    return Finding("python", OK, found)


def _packages() -> Finding:
    missing = sorted({name for name, _ in _lacking()})
    if missing:
        extras = sorted({extra for _, extra in _lacking() if extra})
        name = f"{DISTRIBUTION}[{','.join(extras)}]" if extras else DISTRIBUTION
        return Finding(
            "packages", BAD, f"missing or too old: {', '.join(missing)}", f"pip install '{name}'"
        )
    return Finding("packages", OK, f"shortlist {installed_version()}, with all that it needs")


def _lacking() -> Iterator[tuple[str, str]]:
    """Packages that are missing or below their floor, each with the extra that brings it."""
    with suppress(PackageNotFoundError):  # a copy of the code without metadata states no needs
        for requirement in requires(DISTRIBUTION) or ():
            extra = _EXTRA.search(requirement)
            floor = _FLOOR.match(requirement)
            named = "" if extra is None else extra[1]
            is_elsewhere = "sys_platform" in requirement and sys.platform != "linux"
            if floor is None or named not in _NEEDED or is_elsewhere:
                continue
            if _installed(floor[1]) < _numbers(floor[2]):
                yield f"{floor[1]}>={floor[2]}", named


def _installed(name: str) -> tuple[int, ...]:
    try:
        return _numbers(version(name))
    except PackageNotFoundError:
        return ()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text.partition("+")[0])[:3]))


def _machine() -> Finding:
    cores, memory = _cores(), free_memory()
    if memory is None:
        return Finding("machine", OK, f"{cores} cores")
    found = f"{cores} cores, {memory / 2**30:.1f} GiB of memory free"
    if memory < LEAST_MEMORY:
        remedy = "free some, or give the machine more: training takes about 1 GiB and grows"
        return Finding("machine", WARNING, found, remedy)
    return Finding("machine", OK, found)


def _cores() -> int:
    """Those that training takes: a container may have fewer than its machine."""
    try:
        from loky import cpu_count
    except ImportError:  # without the extra `batch`, whose lack is a finding of its own
        return os.cpu_count() or 1
    return int(cpu_count())


def _settings(environ: Mapping[str, str]) -> Finding:
    unknown = misspelt(environ)
    if unknown:
        remedy = "correct the name, or unset it; docs/settings.md has them all"
        return Finding("settings", WARNING, "; ".join(unknown), remedy)
    return Finding("settings", OK, "all valid")


def _store(settings: Settings) -> tuple[Finding, Finding, ReleasePointer | None, bool]:
    """Redis, its clock, the release pointer, and whether Redis has that release whole."""
    where = _shown(parse_redis_url(settings.redis_url))
    no_clock = Finding("clock", OK, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    try:
        with batch_store(settings, TIMEOUT_MS) as store:
            store.ping()
            info = _info(store)
            pointer = store.release()
            is_whole = pointer is not None and store.is_whole(pointer.current)
            return _redis(store, where, info), _clock(info) or no_clock, pointer, is_whole
    except ShortlistError as error:
        found, remedy = _parts(error)
        remedy += "; `shortlist redis` starts one on this machine"
        return Finding("redis", BAD, f"{where}: {found}", remedy), no_clock, None, False


def _shown(address: RedisAddress) -> str:
    """The address without credentials."""
    return address.path or f"{address.host}:{address.port}"


def _info(store: RedisStore) -> dict[str, Any]:
    """What the server tells of itself; nothing where it may not."""
    from redis.exceptions import RedisError

    try:
        info = store.redis.info()
    except RedisError:
        return {}
    # A cluster's client gives {node: info}.
    first = next(iter(info.values()), None)
    return dict(first if isinstance(first, dict) and "redis_version" in first else info)


def _redis(store: RedisStore, where: str, info: Mapping[str, Any]) -> Finding:
    kind = "Valkey" if "valkey_version" in info else "Redis"
    number = info.get("valkey_version", info.get("redis_version", "of unknown version"))
    policy, used = server_policy(store), int(info.get("used_memory", 0))
    found = f"{kind} {number} at {where}, {used / 2**20:.0f} MiB used"
    if policy is None:
        return Finding("redis", OK, f"{found}, policy not known")
    found += f", {policy.maxmemory_policy}"
    if policy.evicts_any_key:
        remedy = "set maxmemory-policy noeviction: this one evicts the serving release when full"
        return Finding("redis", BAD, found, remedy)
    if policy.maxmemory and used > 0.9 * policy.maxmemory:
        remedy = "raise maxmemory, or prune releases: a full Redis takes no events"
        return Finding("redis", WARNING, f"{found}, {used / policy.maxmemory:.0%} full", remedy)
    return Finding("redis", OK, found)


def _clock(info: Mapping[str, Any]) -> Finding | None:
    """The clock next to that of Redis; None where Redis does not tell its own."""
    if "server_time_usec" not in info:
        return None
    difference = time.time() - int(info["server_time_usec"]) / 1e6
    found = f"{abs(difference):.1f} s {'after' if difference > 0 else 'before'} that of Redis"
    if abs(difference) > CLOCK_SECONDS:
        return Finding("clock", WARNING, found, "set both by NTP: ages of lists would be wrong")
    return Finding("clock", OK, found)


def _artefacts(settings: Settings) -> Finding:
    place = settings.artefacts
    if not place.startswith(s3.SCHEME):
        place = str(Path(place).absolute())
    try:
        versions = existing_artefacts(settings.artefacts).versions()
    except ShortlistError as error:
        return Finding("artefacts", BAD, *_parts(error))
    if not versions:
        return Finding(
            "artefacts", WARNING, f"no release in {place}", "`shortlist batch run` makes one"
        )
    number = f"{len(versions)} release{'s' if len(versions) > 1 else ''}"
    return Finding("artefacts", OK, f"{number} in {place}")


def _release(pointer: ReleasePointer | None, *, is_whole: bool) -> Finding:
    if pointer is None:
        remedy = "`shortlist batch run` publishes one"
        return Finding("release", WARNING, "none serves in this Redis and namespace", remedy)
    if not is_whole:
        remedy = "`shortlist batch run` writes it again; until then answers are slower"
        return Finding("release", BAD, f"{pointer.current} is not whole in Redis", remedy)
    return Finding("release", OK, f"{pointer.current} serves, whole in Redis")


def _bundle(settings: Settings, serving: str, now: float) -> Finding:
    """The serving bundle, its files and its age."""
    try:
        manifest = existing_artefacts(settings.artefacts).manifest(serving)
    except ShortlistError as error:
        return Finding("bundle", BAD, *_parts(error))
    days = (now - float(manifest.get("created_at", now))) / 86_400
    size = sum(file["size"] for file in manifest["files"].values()) / 2**20
    found = f"{days:.1f} days old, {size:.1f} MiB"
    if days > OLD_DAYS:
        remedy = "run `shortlist batch run`: it knows no item that is newer"
        return Finding("bundle", WARNING, found, remedy)
    return Finding("bundle", OK, found)


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            found = f"{port} cannot be used ({error.strerror})"
            remedy = f"give `shortlist serve` another --port than {port}, or stop what has it"
            return Finding("port", WARNING, found, remedy)
    return Finding("port", OK, f"{port} is free")


def _disk(settings: Settings, work: Path) -> Finding:
    places = {"work": work.absolute(), "bundles": settings.bundle_dir.absolute()}
    if not settings.artefacts.startswith(s3.SCHEME):
        places["artefacts"] = Path(settings.artefacts).absolute()
    free = {name: shutil.disk_usage(_nearest(place)).free for name, place in places.items()}
    found = ", ".join(f"{bytes_ / 2**30:.1f} GiB free for {name}" for name, bytes_ in free.items())
    least = min(free.values())
    if least < LEAST_DISK:
        state = BAD if least < LEAST_DISK / 10 else WARNING
        remedy = "free some, or set --work, SHORTLIST_ARTEFACTS or SHORTLIST_BUNDLE_DIR elsewhere"
        return Finding("disk", state, found, remedy)
    return Finding("disk", OK, found)


def _nearest(place: Path) -> Path:
    """The place, or the nearest folder above it that is there."""
    return next(each for each in (place, *place.parents) if each.exists())


def _aws(settings: Settings) -> Finding:
    """Who AWS takes this process for, where a setting needs AWS."""
    uses_iam = parse_redis_url(settings.redis_url).iam_cache is not None
    if not settings.artefacts.startswith(s3.SCHEME) and not uses_iam:
        return Finding("aws", OK, "not used: no setting names s3:// or iam=")
    return _asked(_identity)


def _asked(identity: Callable[[], str]) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return Finding("aws", OK, identity())
    except (BotoCoreError, ClientError) as error:
        remedy = "sign in (`aws sso login`), or set AWS_PROFILE and AWS_REGION"
        return Finding("aws", BAD, s3.without_secrets(error), remedy)


def _identity() -> str:
    import boto3
    from botocore.config import Config

    seconds = TIMEOUT_MS / 1000
    config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"max_attempts": 0})
    return str(boto3.client("sts", config=config).get_caller_identity()["Arn"])
