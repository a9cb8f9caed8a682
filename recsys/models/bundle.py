"""A release's artefacts as a directory: written by the batch, verified and memory-mapped by whoever serves.

Nothing in it can run: npy without pickle, msgpack, FAISS's and LightGBM's own formats, and each
file's sha256 is checked against the manifest before any of it is read. A sum says only that files
and manifest belong together: whoever can write to the store can write both. So every shape, type
and range is checked too, before a library that would believe it sees it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import faiss
import msgpack
import numpy as np

from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.models.arrays import finite_within, read_npy, read_npz
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue
from shortlist.recsys.models.features import ItemTable, feature_hash
from shortlist.recsys.models.index import read_index
from shortlist.recsys.models.interactions import MISSING, Int32, UserStates
from shortlist.recsys.models.neighbours import NEIGHBOURS, RELATIONS, Neighbours
from shortlist.recsys.models.pipeline import Model, by_trend, new_items
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.models.towers import HALF_LIVES, Towers
from shortlist.recsys.store import release_files
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.store.release_files import Release
from shortlist.recsys.values import MAX_WEIGHT

LAYOUT = 2
"""Changes when older code could no longer read the files."""

_COLUMNS = ("popularity", "recent", "trend", "age", "weight", "year", "membership")

MAX_NEIGHBOUR_WEIGHT = 1e4
"""Of the towers. Trained ones are below 100; with this, no sum of products in `user_vectors` leaves float32."""

MAX_SHARE = 1e6
"""Of memberships and neighbours' weights, which are multiplied with each other: real ones are about 1 at most."""

MAX_VALUE = MAX_WEIGHT
"""Of the item table's other columns, of which differences and means are taken; a year may be any number that a shop gives."""

MAX_CANDIDATES = 10_000
"""The most that `TOP_K_CANDIDATES` allows."""

MAX_DIMENSIONS, MAX_UNITS = 1024, 65_536
"""Of the towers: the most that `EMBEDDING_DIM` allows, and far more hidden units than any training here has."""

CATALOG_BYTES, RANKER_BYTES = 512 << 20, 256 << 20
"""The largest that are read: a million items with titles of 400 characters; 10 000 trees of 250 leaves."""


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue as serving needs it, by row; row_of maps an id to its row."""

    ids: list[str]
    titles: list[str]
    categories: list[tuple[str, ...]]
    row_of: dict[str, int]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded release. popular: int32[n] item rows, most popular first."""

    manifest: dict[str, Any]
    catalogue: Items
    vocabulary: AttributeVocabulary
    model: Model
    popular: Int32


def save(
    directory: Path,
    model: Model,
    ranker_text: str,
    catalogue: Catalogue,
    vocabulary: AttributeVocabulary,
    fields: Mapping[str, object],
) -> dict[str, Any]:
    """Writes a bundle and its manifest into `directory`; gives the manifest. fields must name the `version`."""
    directory.mkdir(parents=True, exist_ok=True)
    table = model.table
    save_towers(directory, model.towers)
    save_table(directory, table)
    # Not faiss.write_index, which says nothing where the disk is full and the last block does not
    # fit.
    (directory / "index.faiss").write_bytes(faiss.serialize_index(model.index).tobytes())
    (directory / "ranker.txt").write_text(ranker_text)
    catalog: dict[str, Any] = {
        "ids": catalogue.ids,
        "titles": catalogue.titles,
        "categories": catalogue.categories,
    }
    catalog["attributes"] = asdict(vocabulary)
    (directory / "catalog.msgpack").write_bytes(msgpack.packb(catalog))
    (directory / "popular.msgpack").write_bytes(msgpack.packb(_by_popularity(table).tobytes()))
    fixed = {"layout": LAYOUT, "feature_hash": feature_hash(), "n_candidates": model.n_candidates}
    fixed["exploration_share"] = model.exploration_share
    return release_files.build_manifest(directory, **fixed, **fields)


def save_table(directory: Path, table: ItemTable) -> None:
    """Writes an item table and its neighbours."""
    moments = np.array([table.weight_mean, table.weight_scale])
    np.savez(directory / "items.npz", moments=moments, **{c: getattr(table, c) for c in _COLUMNS})
    np.save(directory / "neighbour_rows.npy", table.neighbours.rows, allow_pickle=False)
    np.save(directory / "neighbour_weights.npy", table.neighbours.weights, allow_pickle=False)


def save_towers(directory: Path, towers: Towers) -> None:
    """Writes trained towers."""
    np.savez(directory / "towers.npz", **towers.arrays())  # type: ignore[arg-type]


def load_towers(directory: Path) -> Towers:
    """Reads what `save_towers` wrote."""
    with (directory / "towers.npz").open("rb") as file:
        return _towers(file)


def _towers(file: BinaryIO) -> Towers:
    """Raises CorruptArtefact where the arrays are not of one pair of towers."""
    names = [field.name for field in fields(Towers)]
    towers = Towers(**read_npz(file, dict.fromkeys(names, "<f4")))
    for name, array in towers.arrays().items():
        _check(
            file.name,
            f"has values of {name} beyond {MAX_NEIGHBOUR_WEIGHT:g}",
            holds=finite_within(array, MAX_NEIGHBOUR_WEIGHT),
        )
    _check(
        file.name,
        "has arrays of another rank",
        holds=towers.history.ndim == towers.hidden_w.ndim == 2,  # noqa: PLR2004
    )
    n, d, hidden = len(towers.history) - 1, towers.dimension, towers.hidden_w.shape[1]
    tokens, wide = len(towers.attributes), len(HALF_LIVES) * d
    shapes = {
        "history": (n + 1, d),
        "items": (n, d + 1),
        "attributes": (tokens, d),
        "skip_w": (wide, d),
        "norm_g": (wide + d,),
        "norm_b": (wide + d,),
        "hidden_w": (wide + d, hidden),
        "hidden_b": (hidden,),
        "out_w": (hidden, d),
        "out_b": (d,),
    }
    found = {name: array.shape for name, array in towers.arrays().items()}
    holds = found == shapes and n >= 1 and tokens >= 1
    holds = holds and 1 <= d <= MAX_DIMENSIONS and 1 <= hidden <= MAX_UNITS
    _check(file.name, f"has arrays of shapes {found}, which do not fit each other", holds=holds)
    return towers


def _check(name: str, what: str, *, holds: bool) -> None:
    if not holds:
        raise CorruptArtefact(f"{name} {what}: publish the release again")


def _by_popularity(table: ItemTable) -> Int32:
    n = len(table.popularity) - 1
    return np.lexsort((np.arange(n), -table.popularity[:n])).astype(np.int32)


def load(directory: Path) -> Bundle:
    """Verifies and loads a bundle.

    Raises:
        CorruptArtefact: a file is missing, is not what the manifest says, or not what `save`
            writes.
        BundleMismatch: the bundle has another layout or other features than this code.
        LoadFailed: a file cannot be read.
    """
    manifest = release_files.manifest_in(directory)
    _check_manifest(manifest)  # before its files: of another layout, they may be others
    with release_files.open_verified(directory, manifest) as release:
        return read(release)


def read(release: Release) -> Bundle:
    """Loads a verified bundle, which may be closed after. Raises as `load`."""
    manifest = release.manifest
    _check_manifest(manifest)
    table = _table(
        release.file("items.npz"),
        release.file("neighbour_rows.npy"),
        release.file("neighbour_weights.npy"),
    )
    towers = _towers(release.file("towers.npz"))
    n = len(table.popularity) - 1
    _check(
        release.file("towers.npz").name,
        f"is of {len(towers.items)} items, the table of {n}",
        holds=len(towers.items) == n,
    )
    index = read_index(release.file("index.faiss"), n, towers.items.shape[1], MAX_NEIGHBOUR_WEIGHT)
    items, vocabulary = _catalogue(release, n, len(towers.attributes) - 1)
    ranker = _ranker(release)
    share = float(manifest["exploration_share"])
    model = Model(
        towers,
        index,
        table,
        ranker,
        manifest["n_candidates"],
        by_trend(table),
        share,
        new_items(table),
    )
    return Bundle(manifest, items, vocabulary, model, _popular(release, n))


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """What serving reads of a manifest has its type and range; what the batch adds may be absent.

    Raises:
        BundleMismatch: another layout or other features.
        CorruptArtefact: a value is none that `save` writes.
    """
    version = manifest.get("version")
    found = (manifest.get("layout"), manifest.get("feature_hash"))
    if found != (LAYOUT, feature_hash()):
        message = (
            f"bundle {version} has layout and features {found}, this code {(LAYOUT, feature_hash())}: "
            "rebuild it, or activate an older release"
        )
        raise BundleMismatch(message)
    candidates, share = manifest.get("n_candidates"), manifest.get("exploration_share")
    rules = {
        "version": isinstance(version, str),
        "n_candidates": _is_whole(candidates, 1, MAX_CANDIDATES),
        "exploration_share": _is_number(share) and 0 <= share <= 1,
        "list_length": _is_whole(manifest.get("list_length", 1), 1, 1000),
        "created_at": _is_whole(manifest.get("created_at", 0), 0, 2**53),
        "as_of": _is_whole(manifest.get("as_of", 0), -(2**63), 2**63 - 1),
        "importances": _are_shares(manifest.get("importances", {})),
    }
    for name, holds in rules.items():
        _check(
            f"the manifest of bundle {version}", f"has {name} {manifest.get(name)!r}", holds=holds
        )


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _are_shares(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(share) for share in value.values())


def _ranker(release: Release) -> Ranker | None:
    """The ranker, or None where the batch found nothing to learn."""
    body = release.read("ranker.txt", RANKER_BYTES)
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise CorruptArtefact(
            f"{release.directory}/ranker.txt is no text ({error}): publish the release again"
        ) from error
    return Ranker(text) if text else None


def _popular(release: Release, n: int) -> Int32:
    """int32[n]: every row once."""
    name = "popular.msgpack"
    body = _unpacked(release, name, 16 + 4 * n, 4 * n)
    _check(
        name, f"holds no rows of {n} items", holds=isinstance(body, bytes) and len(body) == 4 * n
    )
    rows = np.frombuffer(body, np.int32)
    within = bool(((rows >= 0) & (rows < n)).all())
    _check(
        name,
        "does not hold every row once",
        holds=within and bool((np.bincount(rows, minlength=n) == 1).all()),
    )
    return rows


def _catalogue(release: Release, n: int, n_tokens: int) -> tuple[Items, AttributeVocabulary]:
    """The catalogue of n items, and the vocabulary of n_tokens user attributes."""
    name = "catalog.msgpack"
    found = _unpacked(release, name, CATALOG_BYTES, max(n, n_tokens, 1024))
    parts = {"ids", "titles", "categories", "attributes"}
    _check(name, "is no catalogue", holds=isinstance(found, dict) and found.keys() == parts)
    for column in ("ids", "titles", "categories"):
        _check(
            name,
            f"has no {column} of {n} items",
            holds=isinstance(found[column], tuple) and len(found[column]) == n,
        )
    for column in ("ids", "titles"):
        _check(name, f"has {column} that are no texts", holds=_all_of(str, found[column]))
    _check(name, "has categories that are no lists", holds=_all_of(tuple, found["categories"]))
    categories: tuple[tuple[str, ...], ...] = found["categories"]
    _check(
        name,
        "has categories that are no texts",
        holds=_all_of(str, chain.from_iterable(categories)),
    )
    ids = list(found["ids"])
    row_of = {item: row for row, item in enumerate(ids)}
    _check(name, "has an id twice", holds=len(row_of) == n)
    return Items(ids, list(found["titles"]), list(categories), row_of), _vocabulary(
        name, found["attributes"], n_tokens
    )


def _all_of(kind: type, values: Any) -> bool:  # noqa: ANN401 - any iterable of what msgpack gives
    return set(map(type, values)) <= {kind}


def _vocabulary(name: str, told: object, n_tokens: int) -> AttributeVocabulary:
    """Every token of the towers belongs to one value of one column."""
    what = "has attributes that are no vocabulary"
    _check(
        name, what, holds=isinstance(told, dict) and told.keys() == {"columns", "tokens", "edges"}
    )
    assert isinstance(told, dict)
    parts = (told["columns"], told["tokens"], told["edges"])
    _check(name, what, holds=_all_of(tuple, parts) and len({len(part) for part in parts}) == 1)
    columns, tokens, edges = parts
    holds = _all_of(str, columns) and len(set(columns)) == len(columns) and _all_of(dict, tokens)
    _check(name, what, holds=holds and all(_all_of(str, known) for known in tokens))
    numbers = list(chain.from_iterable(known.values() for known in tokens))
    _check(name, what, holds=_all_of(int, numbers) and sorted(numbers) == list(range(n_tokens)))
    _check(name, what, holds=all(each is None or _are_edges(each) for each in edges))
    return AttributeVocabulary(columns, tokens, edges)


def _are_edges(values: object) -> bool:
    """Numbers that do not fall, at least one."""
    if not isinstance(values, tuple) or not values or not all(map(_is_number, values)):
        return False
    return all(low <= high for low, high in pairwise(values))


def _unpacked(release: Release, name: str, most_bytes: int, most_entries: int) -> Any:  # noqa: ANN401 - checked by the caller
    """What a msgpack file holds; most_entries: of a list or map, whose header alone would allocate them."""
    body = release.read(name, most_bytes)
    limits = {"max_array_len": most_entries, "max_map_len": most_entries, "max_ext_len": 0}
    try:
        return msgpack.unpackb(body, use_list=False, **limits)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise CorruptArtefact(
            f"{release.directory / name} is no msgpack ({error!r}): publish the release again"
        ) from error


def load_table(directory: Path) -> ItemTable:
    """Reads what `save_table` wrote; large neighbours are memory-mapped."""
    with (
        (directory / "items.npz").open("rb") as items,
        (directory / "neighbour_rows.npy").open("rb") as rows,
        (directory / "neighbour_weights.npy").open("rb") as weights,
    ):
        return _table(items, rows, weights)


def _table(items: BinaryIO, rows: BinaryIO, weights: BinaryIO) -> ItemTable:
    arrays = read_npz(items, {"moments": "<f8", **dict.fromkeys(_COLUMNS, "<f4")})
    moments, columns = arrays.pop("moments"), arrays
    found = {name: array.shape for name, array in columns.items()}
    n = len(columns["popularity"]) - 1
    ranks = all(array.ndim == 1 + (name == "membership") for name, array in columns.items())
    holds = (
        ranks
        and moments.shape == (2,)
        and n >= 1
        and all(len(array) == n + 1 for array in columns.values())
    )
    _check(items.name, f"has columns of shapes {found}", holds=holds)
    for name, array in columns.items():
        known = array[:n] if name in ("popularity", "recent", "trend") else array
        largest = MAX_SHARE if name == "membership" else MAX_VALUE
        holds = finite_within(known, largest, unknown=known is array and name != "membership")
        _check(items.name, f"has values of {name} beyond {largest:g}", holds=holds)
    _check(items.name, f"has moments {moments.tolist()}", holds=_are_moments(moments))
    mean, scale = (float(value) for value in moments)
    return ItemTable(
        **columns, weight_mean=mean, weight_scale=scale, neighbours=_neighbours(rows, weights, n)
    )


def _are_moments(moments: np.ndarray) -> bool:
    """A mean, and a scale above 0; or NaN for both, where no event has a weight."""
    mean, scale = (float(value) for value in moments)
    if math.isnan(mean) and math.isnan(scale):
        return True
    return abs(mean) <= MAX_VALUE and 1 / MAX_VALUE <= scale <= MAX_VALUE


def _neighbours(rows: BinaryIO, weights: BinaryIO, n: int) -> Neighbours:
    found = Neighbours(read_npy(rows, "<i4", 0, n), read_npy(weights, "<f4", -MAX_SHARE, MAX_SHARE))
    shape = found.rows.shape
    holds = shape[:2] == (len(RELATIONS), n + 1) and len(shape) == 3 and 1 <= shape[2] <= NEIGHBOURS  # noqa: PLR2004
    _check(
        rows.name, f"has neighbours of shape {shape}", holds=holds and found.weights.shape == shape
    )
    return found


def state_from(
    bundle: Bundle,
    items: Sequence[str],
    times: Sequence[int],
    weights: Sequence[float | None],
    n_events: int,
    seen: Sequence[str],
    attributes: Mapping[str, object],
) -> tuple[UserStates, int]:
    """One user's state from ids (events oldest to newest), and how many of the history's items the catalogue lacks."""
    row_of = bundle.catalogue.row_of
    known = [
        (row_of[i], t, w) for i, t, w in zip(items, times, weights, strict=True) if i in row_of
    ]
    recent = known[-HISTORY_LENGTH:]
    padded = np.full((1, HISTORY_LENGTH), MISSING, np.int32)
    moments = np.zeros((1, HISTORY_LENGTH), np.int64)
    weighed = np.full((1, HISTORY_LENGTH), np.nan, np.float32)
    if recent:
        rows, when, weight = zip(*recent, strict=True)
        padded[0, -len(recent) :], moments[0, -len(recent) :] = rows, when
        weighed[0, -len(recent) :] = [np.nan if w is None else w for w in weight]
    had = {row for row, _, _ in known} | {row_of[i] for i in seen if i in row_of}
    state = UserStates(
        padded,
        moments,
        weighed,
        np.array([n_events], np.int32),
        bundle.vocabulary.encode(dict(attributes))[None, :],
        np.array(sorted(had), np.int32),
        np.array([0, len(had)], np.int64),
    )
    return state, len(items) - len(known)
