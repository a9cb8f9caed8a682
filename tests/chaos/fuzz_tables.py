"""Fuzzes the input tables in CSV and Parquet.

Columns, types, values and bytes are hostile. A table must be read, or refused with a message.
"""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from shortlist.recsys import data
from shortlist.recsys.errors import InvalidInput
from tests.chaos import nasty
from tests.chaos.bundle_mutations import MUTATIONS

ROWS = 24
# A table is easier to read than one value per line.
# fmt: off
TIMES = (
    0, -1, 1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 20240102154356, 2**31,
    2**53, 2**63 - 1, 0.5, float("nan"),
    "2024-01-02", "2024-01-02T03:04:05Z", "2023-11-14 22:15:01+00", "14/11/2023", "now",
    "1700000000", "Tue, 14 Nov 2023", "",
)
WEIGHTS = (0, 1, 5, -1, 1e38, 1e39, float("nan"), float("inf"), "5", "five", "", None, True)
CATEGORIES = (
    ["a", "b"], [], None, "a|b", "['a', 'b']", [["a"]], [None], "", "|", b"a", {"a": 1},
    ["a" * 5000],
)
CASTS = (
    pl.String, pl.Int8, pl.Int64, pl.UInt64, pl.Float32, pl.Float64, pl.Boolean, pl.Binary,
    pl.Categorical, pl.Date,
    pl.Datetime("ns"), pl.Datetime("ms", "Europe/Berlin"), pl.Duration("us"), pl.Decimal(38, 2),
    pl.List(pl.String), pl.Null,
)
NAMES = (
    "_file", "_row", "_malformed", "_id", "_weight", "_extra", "user_id", "item_id",
    "timestamp", "weight", "rating", "", "a b", "İ",
)
# fmt: on


UNFIT = (TypeError, OverflowError, ValueError, pl.exceptions.PolarsError)
"""Errors of values that do not fit into one column."""


class TableFuzz:
    """Writes and loads tables in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.counts: Counter[str] = Counter()
        directory.mkdir(parents=True, exist_ok=True)

    def case(self, rng: random.Random) -> str:
        """Loads generated tables, and gives the problem of the outcome, or ""."""
        paths = self._tables(rng)
        interactions, *others = paths
        items, users = (path if rng.random() < 0.7 else None for path in others)
        options = self._options(rng)
        try:
            loaded = data.load(interactions, items, users, **options)
        except InvalidInput as error:
            self.counts["tables: refused"] += 1
            return "" if str(error).strip() else f"a refusal without a word: {paths}"
        except BaseException as error:  # noqa: BLE001 - Polars' panics are no Exceptions
            contents = [Path(path).read_bytes()[:400] for path in paths]
            return f"{type(error).__name__}: {str(error)[:300]} at {contents} {options}"
        self.counts["tables: read"] += 1
        events = loaded.dataset.events
        sound = len(events) == len(events.user) and events.n_users == len(loaded.dataset.user_ids)
        return "" if sound else "a data set that does not fit together"

    def _tables(self, rng: random.Random) -> list[str]:
        """Paths of the three tables."""
        rate = rng.choice((0.0, 0.0, 0.02, 0.1, 0.5))
        frames = {
            "interactions": _interactions(rng, rate),
            "items": _items(rng, rate),
            "users": _users(rng, rate),
        }
        return [self._written(name, _mutated(frame, rng), rng) for name, frame in frames.items()]

    def _options(self, rng: random.Random) -> dict[str, Any]:
        """Options of `data.load`."""
        options: dict[str, Any] = {"rejects": self._directory / "rejects.parquet"}
        options["max_reject_share"] = rng.choice((0.05, 1.0, 1.0))
        if rng.random() < 0.2:
            options["positive_rating"] = rng.choice((0.0, 3.0, -1.0, 1e39, float("nan")))
        return options

    def _written(self, name: str, frame: pl.DataFrame, rng: random.Random) -> str:
        """Writes a table, and damages the bytes of every tenth."""
        path = self._directory / f"{name}.{rng.choice(('csv', 'parquet'))}"
        for old in self._directory.glob(f"{name}.*"):
            old.unlink()
        if path.suffix == ".csv":
            path.write_bytes(_csv(frame, rng))
        else:
            frame.write_parquet(path, compression=rng.choice(("zstd", "snappy", "uncompressed")))
        if rng.random() < 0.1:
            path.write_bytes(rng.choice(MUTATIONS)(path.read_bytes(), rng))
        return str(path)


def _ids(prefix: str, rng: random.Random, rate: float) -> list[Any]:
    whole = rng.random() < 0.5
    plain = [rng.randrange(12) if whole else f"{prefix}{rng.randrange(12)}" for _ in range(ROWS)]
    return [_scalar(rng) if rng.random() < rate else each for each in plain]


def _scalar(rng: random.Random) -> Any:
    others = (None, True, float("nan"), b"\xff", 6.352843280556901e17)
    value = rng.choice((nasty.text(rng), rng.choice(nasty.NUMBERS), *others))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _column(values: list[Any]) -> pl.Series:
    """A column of one type: that of the values, or floats, or texts."""
    with suppress(*UNFIT):
        return pl.Series(values, strict=True)
    if all(isinstance(value, int | float | None) for value in values):
        with suppress(*UNFIT):
            floats = [None if value is None else float(value) for value in values]
            return pl.Series(floats, strict=True)
    return pl.Series([None if v is None else str(v) for v in values], dtype=pl.String)


def _drawn(values: tuple[Any, ...], plain: Any, rng: random.Random, rate: float) -> list[Any]:
    """A column of `plain`, with some of `values` in it."""
    chosen = rng.choice(values)
    usual = chosen if rate > 0.3 else plain  # a whole column of one type is read differently
    return [rng.choice(values) if rng.random() < rate / 2 else usual for _ in range(ROWS)]


def _interactions(rng: random.Random, rate: float) -> pl.DataFrame:
    times = [1_700_000_000 + number for number in range(ROWS)]
    times = [rng.choice(TIMES) if rng.random() < rate / 2 else when for when in times]
    columns: dict[str, list[Any]] = {
        "user_id": _ids("u", rng, rate),
        "item_id": _ids("i", rng, rate),
        "timestamp": times,
    }
    for name in ("rating", "weight", "event_type"):
        if rng.random() < 0.3:
            columns[name] = _drawn(WEIGHTS, 3.0, rng, rate)
    return pl.DataFrame({name: _column(values) for name, values in columns.items()})


def _items(rng: random.Random, rate: float) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {"item_id": _ids("i", rng, rate)}
    for name, values, plain in (
        ("title", nasty.TEXTS, "A title"),
        ("categories", CATEGORIES, "a|b"),
        ("year", TIMES, 1999),
    ):
        if rng.random() < 0.7:
            columns[name] = _drawn(values, plain, rng, rate)
    return pl.DataFrame({name: _column(values) for name, values in columns.items()})


def _users(rng: random.Random, rate: float) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {"user_id": _ids("u", rng, rate)}
    for name in rng.sample(("age", "gender", "_id", "x y", "region"), 2):
        columns[name] = _drawn((*nasty.NUMBERS[:12], *nasty.TEXTS[:20], None, True), 30, rng, rate)
    return pl.DataFrame({name: _column(values) for name, values in columns.items()})


def _cast(frame: pl.DataFrame, name: str, rng: random.Random) -> pl.DataFrame:
    """Casts a column, where that is possible."""
    with suppress(pl.exceptions.PolarsError):
        return frame.with_columns(pl.col(name).cast(rng.choice(CASTS), strict=False))
    return frame


def _renamed(frame: pl.DataFrame, name: str, rng: random.Random) -> pl.DataFrame:
    other = rng.choice(NAMES)
    return frame if other in frame.columns else frame.rename({name: other})


SHAPES: tuple[Callable[[pl.DataFrame, str, random.Random], pl.DataFrame], ...] = (
    lambda frame, name, _: frame.drop(name),
    _cast,
    _renamed,
    lambda frame, _, rng: frame.with_columns(pl.lit(rng.choice(WEIGHTS)).alias(rng.choice(NAMES))),
    lambda frame, _, rng: frame.head(rng.randrange(2)),
    lambda frame, _name, _rng: pl.concat([frame, frame]),
    lambda frame, name, _: frame.with_columns(pl.struct(name, pl.lit(1).alias("one")).alias(name)),
    lambda frame, _, rng: frame.select(pl.all().shuffle(seed=rng.randrange(100))),
)
"""Changes of a table: a column dropped, cast, renamed, added or nested; rows cut or doubled."""


def _mutated(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """The table, a third of the time in another shape."""
    if rng.random() < 2 / 3:
        return frame
    return rng.choice(SHAPES)(frame, rng.choice(frame.columns), rng)


def _csv(frame: pl.DataFrame, rng: random.Random) -> bytes:
    out = io.StringIO()
    quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_MINIMAL))
    writer = csv.writer(out, delimiter=rng.choice(",,,,;\t|"), quoting=quoting, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([_text(value) for value in row] for row in _rows(frame))
    text = out.getvalue()
    kind = rng.random()
    if kind < 0.7:
        return text.encode()
    if kind < 0.8:
        return text.replace("\n", "\r\n").encode()
    if kind < 0.86:
        return b"\xef\xbb\xbf" + text.encode()
    if kind < 0.92:
        return text.encode("latin-1", "replace")
    lines = text.split("\n")
    lines[rng.randrange(len(lines))] += rng.choice((",extra", ',"', '"', ",,,,,,", "\x00"))
    return "\n".join(lines).encode()


def _rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """The rows; placeholders where Polars cannot convert a value to Python."""
    try:
        return frame.rows()
    except BaseException:  # noqa: BLE001 - Polars' panics are no Exceptions
        return [tuple("odd" for _ in frame.columns) for _ in range(frame.height)]


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case list():
            return "|".join(map(str, value))
        case bytes():
            return value.decode("latin-1")
    return str(value)
