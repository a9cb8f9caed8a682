"""Saves, verifies and loads a release's artefacts as a directory.

Nothing in a bundle can run: npy without pickle, msgpack, FAISS's and LightGBM's own formats. Each
file's sha256 is checked against the manifest before any of it is read. A sum says only that files
and manifest belong together, since whoever can write to the store can write both. So every shape,
type and range is checked too, before a library that would believe it sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import faiss
import msgpack
import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.atomic_file import replacing
from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.models.arrays import finite_within, read_npy, read_npz
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue, ItemAttribute
from shortlist.recsys.models.features import ItemLabels, ItemTable
from shortlist.recsys.models.fingerprint import feature_hash
from shortlist.recsys.models.index import read_index
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, Repeats, UserStates
from shortlist.recsys.models.neighbours import NEIGHBOURS, UNITS, Neighbours, Relation
from shortlist.recsys.models.pipeline import PLACES, Model, by_trend, new_items
from shortlist.recsys.models.ranker import Ranker, ranker_from
from shortlist.recsys.models.towers import HALF_LIVES, Towers
from shortlist.recsys.store import release_files
from shortlist.recsys.store.feedback import read as read_record
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.store.records import ItemRecord, UserRecord
from shortlist.recsys.store.release_facts import ReleaseFacts, facts_in
from shortlist.recsys.store.release_files import Release
from shortlist.recsys.values import FIRST_CLOCK_TIME, MAX_WEIGHT
from shortlist.recsys.where import AttributeKind, AttributeValue, is_date

BUNDLE_LAYOUT = 4
"""Changes when older code could no longer read the files."""

# The files of a bundle; only this module opens them.
TOWERS = "towers.npz"
ITEM_VECTORS = "item_vectors.npy"
HISTORY_VECTORS = "history_vectors.npy"
ITEM_TABLE = "items.npz"
NEIGHBOUR_ROWS = "neighbour_rows.npy"
NEIGHBOUR_WEIGHTS = "neighbour_weights.npy"
NEIGHBOUR_UNITS = "neighbour_units.npy"
INDEX = "index.faiss"
RANKER = "ranker.txt"
CATALOGUE = "catalog.msgpack"
POPULAR = "popular.msgpack"

_TABLE_COLUMNS = (
    "popularity",
    "recent",
    "trend",
    "age",
    "weight",
    "target_share",
    "negative_share",
    "year",
    "interval",
    "repeat_rate",
    "numbers",
)
_KIND_COLUMNS = ("is_target", "strength")
_LABELS = ("categories", "labels")
_WIDE = (*_LABELS, "numbers")
_ALWAYS_KNOWN = ("popularity", "recent", "trend")

MAX_TOWER_WEIGHT = 1e4
"""Trained ones are below 100; up to this, no sum of products in `user_vectors` leaves float32."""

MAX_SHARE = 1e6
"""Largest weight of labels and neighbours, which are multiplied: real ones are about 1 at most."""

MAX_UNIT = MAX_SHARE / UNITS
"""Of neighbour weights."""

MAX_VALUE = MAX_WEIGHT
"""Largest value of the item table's other columns, whose differences and means fit into float32.

A year may be any number that a shop gives.
"""

MAX_CANDIDATES = 10_000
"""The most that `TOP_K_CANDIDATES` allows."""

MAX_DIMENSIONS = 1024
"""Of the towers: the most that `EMBEDDING_DIM` allows."""

MAX_KINDS = 256
"""Kinds of events: the most that a byte tells apart."""

MAX_UNITS = 65_536
"""Hidden units of the towers: far more than any training here has."""

MAX_ATTRIBUTES = 1000
"""Of the items: a wide table has hundreds of columns."""

CATALOGUE_BYTES = 512 << 20
"""The largest that is read: a million items with titles of 400 characters."""

RANKER_BYTES = 256 << 20
"""The largest that is read: 10,000 trees of 250 leaves."""


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue by row, for serving.

    row_of maps an id to its row; attributes: what is shown and filtered by besides.
    """

    ids: list[str]
    titles: list[str]
    categories: list[tuple[str, ...]]
    row_of: dict[str, int]
    attributes: tuple[ItemAttribute, ...] = ()

    def record(self, row: int) -> ItemRecord:
        """What an answer shows of the item in a row."""
        shown: dict[str, AttributeValue] = {}
        unshown: dict[str, AttributeValue] = {}
        for attribute in self.attributes:
            value = attribute.values[row]
            if value is not None:
                (shown if attribute.is_shown else unshown)[attribute.name] = value
        return ItemRecord(
            self.ids[row],
            self.titles[row],
            self.categories[row],
            attributes=shown,
            unshown=unshown,
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded release.

    popular: int32[n] item rows, most popular first; facts: what the manifest says of the data.
    """

    manifest: dict[str, Any]
    catalogue: Items
    vocabulary: AttributeVocabulary
    model: Model
    popular: Int32
    facts: ReleaseFacts


def save(
    directory: Path,
    model: Model,
    ranker_text: str,
    catalogue: Catalogue,
    vocabulary: AttributeVocabulary,
    fields: Mapping[str, object],
) -> dict[str, Any]:
    """Writes a bundle into `directory` and gives its manifest.

    fields: what else the manifest says; they must name the `version`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    catalog = {
        "ids": catalogue.ids,
        "titles": catalogue.titles,
        "categories": catalogue.categories,
        "attributes": asdict(vocabulary),
        "item_attributes": [attribute.as_plain() for attribute in catalogue.attributes],
    }
    (directory / CATALOGUE).write_bytes(msgpack.packb(catalog))
    popular = _by_popularity(model.table)
    (directory / POPULAR).write_bytes(msgpack.packb(popular.tobytes()))
    return save_model(directory, model, ranker_text, fields)


def save_model(
    directory: Path, model: Model, ranker_text: str, fields: Mapping[str, object]
) -> dict[str, Any]:
    """Writes a model and the manifest of all files in `directory`.

    Takes and gives the same as `save`.
    """
    save_towers(directory, model.towers)
    save_table(directory, model.table)
    # Not faiss.write_index, which says nothing when the disk is full and the last block is lost.
    (directory / INDEX).write_bytes(faiss.serialize_index(model.index).tobytes())
    save_ranker_text(directory, ranker_text)
    own = {
        "layout": BUNDLE_LAYOUT,
        "feature_hash": feature_hash(),
        "n_candidates": model.n_candidates,
        "exploration_share": model.exploration_share,
        "repeats": model.repeats.value,
    }
    return release_files.build_manifest(directory, **own, **fields)


def save_table(directory: Path, table: ItemTable) -> None:
    """Writes an item table and its neighbours."""
    moments = np.array([table.weight_mean, table.weight_scale])
    columns: dict[str, Any] = {
        name: getattr(table, name) for name in (*_TABLE_COLUMNS, *_KIND_COLUMNS)
    }
    for name in _LABELS:
        labels: ItemLabels = getattr(table, name)
        columns |= {name: labels.rows, f"{name}_weights": labels.weights}
    np.savez(directory / ITEM_TABLE, moments=moments, **columns)
    _save_mapped(directory / NEIGHBOUR_ROWS, table.neighbours.rows)
    _save_mapped(directory / NEIGHBOUR_WEIGHTS, table.neighbours.weights)
    _save_mapped(directory / NEIGHBOUR_UNITS, table.neighbours.units)


def save_towers(directory: Path, towers: Towers) -> None:
    """Writes trained towers; what has a row for each item is in files of its own."""
    arrays = towers.arrays()
    _save_mapped(directory / ITEM_VECTORS, arrays.pop("items"))
    _save_mapped(directory / HISTORY_VECTORS, arrays.pop("history"))
    np.savez(directory / TOWERS, **arrays)  # type: ignore[arg-type]


def _save_mapped(path: Path, array: NDArray[Any]) -> None:
    """Writes an array that readers may map: as a new file, for those who have the old one."""
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_ranker_text(directory: Path, text: str) -> None:
    """Writes a stamped ranker, or `NO_RANKER`."""
    (directory / RANKER).write_text(text)


def load_ranker_text(directory: Path) -> str:
    """Reads what `save_ranker_text` wrote."""
    return (directory / RANKER).read_text()


def load_towers(directory: Path) -> Towers:
    """Reads what `save_towers` wrote; large tables are memory-mapped."""
    with (
        (directory / TOWERS).open("rb") as weights,
        (directory / ITEM_VECTORS).open("rb") as items,
        (directory / HISTORY_VECTORS).open("rb") as history,
    ):
        return _towers(weights, items, history)


def load_table(directory: Path) -> ItemTable:
    """Reads what `save_table` wrote; large neighbours are memory-mapped."""
    with (
        (directory / ITEM_TABLE).open("rb") as items,
        (directory / NEIGHBOUR_ROWS).open("rb") as rows,
        (directory / NEIGHBOUR_WEIGHTS).open("rb") as weights,
        (directory / NEIGHBOUR_UNITS).open("rb") as units,
    ):
        return _table(items, rows, weights, units)


def load_items(directory: Path) -> tuple[Items, Int32]:
    """The catalogue and popular rows of a bundle that this machine wrote.

    Nothing is checked.
    """
    catalog = msgpack.unpackb((directory / CATALOGUE).read_bytes(), use_list=False)
    popular = np.frombuffer(msgpack.unpackb((directory / POPULAR).read_bytes()), "<i4")
    return _items(catalog), popular


def _items(catalog: Mapping[str, Any]) -> Items:
    ids = list(catalog["ids"])
    row_of = {item: row for row, item in enumerate(ids)}
    attributes = tuple(map(ItemAttribute.from_plain, catalog["item_attributes"]))
    return Items(ids, list(catalog["titles"]), list(catalog["categories"]), row_of, attributes)


def _towers(file: BinaryIO, items: BinaryIO, history: BinaryIO) -> Towers:
    """Raises CorruptArtefact where the arrays are not of one pair of towers."""
    names = [field.name for field in fields(Towers) if field.name not in ("items", "history")]
    weights = read_npz(file, dict.fromkeys(names, "<f4"))
    for name, array in weights.items():
        _check(
            file.name,
            f"has values of {name} beyond {MAX_TOWER_WEIGHT:g}",
            holds=finite_within(array, MAX_TOWER_WEIGHT),
        )
    of_items, of_history = (
        read_npy(each, "<f4", -MAX_TOWER_WEIGHT, MAX_TOWER_WEIGHT) for each in (items, history)
    )
    towers = Towers(items=of_items, history=of_history, **weights)
    are_matrices = towers.history.ndim == towers.hidden_w.ndim == 2  # noqa: PLR2004
    _check(file.name, "has arrays of another rank", holds=are_matrices)
    shapes = {name: array.shape for name, array in towers.arrays().items()}
    holds = shapes == _tower_shapes(towers) and _are_tower_sizes(towers)
    _check(file.name, f"has arrays of shapes {shapes}, which do not fit each other", holds=holds)
    return towers


def _tower_shapes(towers: Towers) -> dict[str, tuple[int, ...]]:
    """The shapes that fit the towers' history embeddings, hidden layer and tokens."""
    n, d = len(towers.history) - 1, towers.dimension
    hidden, tokens = towers.hidden_w.shape[1], len(towers.attributes)
    means = len(HALF_LIVES) * d
    return {
        "history": (n + 1, d),
        "items": (n, d + 1),
        "attributes": (tokens, d),
        "skip_w": (means, d),
        "norm_g": (means + d,),
        "norm_b": (means + d,),
        "hidden_w": (means + d, hidden),
        "hidden_b": (hidden,),
        "out_w": (hidden, d),
        "out_b": (d,),
    }


def _are_tower_sizes(towers: Towers) -> bool:
    hidden = towers.hidden_w.shape[1]
    holds = 1 <= towers.dimension <= MAX_DIMENSIONS and 1 <= hidden <= MAX_UNITS
    # An item at least, and the padding row of the tokens.
    return holds and len(towers.history) > 1 and len(towers.attributes) >= 1


def _check(name: str, what: str, *, holds: bool) -> None:
    if not holds:
        raise CorruptArtefact(f"{name} {what}: publish the release again")


def _by_popularity(table: ItemTable) -> Int32:
    n = len(table.popularity) - 1
    return np.lexsort((np.arange(n), -table.popularity[:n])).astype(np.int32)


def own_bytes(directory: Path) -> int:
    """Bytes of a bundle that each process holds for itself: what is mapped is shared."""
    return sum((directory / name).stat().st_size for name in (TOWERS, ITEM_TABLE, INDEX, CATALOGUE))


def load(directory: Path) -> Bundle:
    """Verifies and loads a bundle.

    Raises:
        CorruptArtefact: a file is missing, is not what the manifest says, or not what `save`
            writes.
        BundleMismatch: the bundle has another layout or other features than this code.
        LoadFailed: a file cannot be read.
    """
    with _opened(directory) as release:
        return read(release)


def load_model(directory: Path) -> Model:
    """Verifies and loads what `save_model` wrote. Raises as `load`."""
    with _opened(directory) as release:
        return _model(release)


def _opened(directory: Path) -> AbstractContextManager[Release]:
    """Raises as `load`."""
    manifest = release_files.manifest_in(directory)
    _check_manifest(manifest)  # before its files: another layout may have others
    return release_files.open_verified(directory, manifest)


def read(release: Release) -> Bundle:
    """Loads a verified bundle, which may be closed after. Raises as `load`."""
    manifest = release.manifest
    _check_manifest(manifest)
    model = _model(release)
    n = len(model.towers.items)
    items, vocabulary = _catalogue(release, n, len(model.towers.attributes) - 1)
    facts = _facts(manifest, model)
    return Bundle(manifest, items, vocabulary, model, _popular(release, n), facts)


def _model(release: Release) -> Model:
    """The model of a release whose manifest has been checked. Raises as `load`."""
    manifest = release.manifest
    names = (ITEM_TABLE, NEIGHBOUR_ROWS, NEIGHBOUR_WEIGHTS, NEIGHBOUR_UNITS)
    table = _table(*map(release.file, names))
    towers = _towers(*map(release.file, (TOWERS, ITEM_VECTORS, HISTORY_VECTORS)))
    n = len(table.popularity) - 1
    _check(
        release.file(ITEM_VECTORS).name,
        f"is of {len(towers.items)} items, the table of {n}",
        holds=len(towers.items) == n,
    )
    index = read_index(release.file(INDEX), n, towers.items.shape[1], MAX_TOWER_WEIGHT)
    return Model(
        towers=towers,
        index=index,
        table=table,
        ranker=_ranker(release),
        n_candidates=manifest["n_candidates"],
        trending=by_trend(table),
        exploration_share=float(manifest["exploration_share"]),
        new=new_items(table),
        repeats=Repeats(manifest.get("repeats", Repeats.NEVER.value)),
    )


def _facts(manifest: Mapping[str, Any], model: Model) -> ReleaseFacts:
    """The manifest's facts, which must be of the same kinds of events and repeats as the model."""
    facts = facts_in(manifest)
    kinds, n_kinds = len(facts.events.kinds), len(model.table.is_target)
    where = f"the manifest of bundle {manifest['version']}"
    _check(where, f"has {kinds} kinds of events, the table {n_kinds}", holds=kinds == n_kinds)
    mode = model.repeats.value
    holds = facts.repeats == mode
    _check(where, f"has repeats {facts.repeats!r} in its facts, and {mode!r}", holds=holds)
    return facts


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Checks type and range of what serving reads.

    What the batch adds may be absent.

    Raises:
        BundleMismatch: another layout or other features.
        CorruptArtefact: a value is not one that `save` writes.
    """
    version = manifest.get("version")
    made_with = (manifest.get("layout"), manifest.get("feature_hash"))
    own = (BUNDLE_LAYOUT, feature_hash())
    if made_with != own:
        message = (
            f"bundle {version} has layout and features {made_with}, this code {own}: "
            "rebuild it, or activate an older release"
        )
        raise BundleMismatch(message)
    candidates, share = manifest.get("n_candidates"), manifest.get("exploration_share")
    rules = {
        "version": isinstance(version, str),
        "n_candidates": _is_whole(candidates, 1, MAX_CANDIDATES),
        "exploration_share": _is_number(share) and 0 <= share <= 1,
        "list_length": _is_whole(manifest.get("list_length", 1), 1, PLACES),
        "created_at": _is_whole(manifest.get("created_at", 0), 0, 2**53),  # exact in JSON
        "as_of": _is_whole(manifest.get("as_of", 0), -(2**63), 2**63 - 1),
        "importances": _are_shares(manifest.get("importances", {})),
        "repeats": manifest.get("repeats", "never") in ("never", "allow"),
    }
    where = f"the manifest of bundle {version}"
    for name, holds in rules.items():
        _check(where, f"has {name} {manifest.get(name)!r}", holds=holds)


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _are_shares(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(share) for share in value.values())


def _ranker(release: Release) -> Ranker | None:
    body = release.read(RANKER, RANKER_BYTES)
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        path = release.directory / RANKER
        raise CorruptArtefact(f"{path} is no text ({error}): publish the release again") from error
    return ranker_from(text)


def _popular(release: Release, n: int) -> Int32:
    """int32[n]: every row once."""
    # A msgpack header of bytes has 5 bytes at most.
    body = _unpacked(release, POPULAR, 16 + 4 * n, 4 * n)
    is_column = isinstance(body, bytes) and len(body) == 4 * n
    _check(POPULAR, f"holds no rows of {n} items", holds=is_column)
    rows = np.frombuffer(body, np.int32)
    within = bool(((rows >= 0) & (rows < n)).all())
    holds = within and bool((np.bincount(rows, minlength=n) == 1).all())
    _check(POPULAR, "does not hold every row once", holds=holds)
    return rows


def _catalogue(release: Release, n: int, n_tokens: int) -> tuple[Items, AttributeVocabulary]:
    """The catalogue of n items, and the vocabulary of n_tokens user attributes."""
    # 1024: the bins of a column may outnumber the items of a small catalogue.
    catalog = _unpacked(release, CATALOGUE, CATALOGUE_BYTES, max(n, n_tokens, 1024))
    parts = {"ids", "titles", "categories", "attributes", "item_attributes"}
    holds = isinstance(catalog, dict) and catalog.keys() == parts
    _check(CATALOGUE, "is no catalogue", holds=holds)
    for column in ("ids", "titles", "categories"):
        holds = isinstance(catalog[column], tuple) and len(catalog[column]) == n
        _check(CATALOGUE, f"has no {column} of {n} items", holds=holds)
    for column in ("ids", "titles"):
        _check(CATALOGUE, f"has {column} that are no texts", holds=_all_of(str, catalog[column]))
    categories: tuple[tuple[str, ...], ...] = catalog["categories"]
    _check(CATALOGUE, "has categories that are no lists", holds=_all_of(tuple, categories))
    names = chain.from_iterable(categories)
    _check(CATALOGUE, "has categories that are no texts", holds=_all_of(str, names))
    _check_attributes(CATALOGUE, catalog["item_attributes"], n)
    items = _items(catalog)
    _check(CATALOGUE, "has an id twice", holds=len(items.row_of) == n)
    return items, _vocabulary(CATALOGUE, catalog["attributes"], n_tokens)


_TYPES: dict[AttributeKind, set[type]] = {
    AttributeKind.TEXT: {str, type(None)},
    AttributeKind.LIST: {tuple, type(None)},
    AttributeKind.NUMBER: {int, float, type(None)},
    AttributeKind.BOOLEAN: {bool, type(None)},
    AttributeKind.DATE: {str, type(None)},
}


def _check_attributes(file: str, columns: object, n: int) -> None:
    """Checks the items' own columns, each of n values of its kind."""
    what = "has items' attributes that are none"
    _check(file, what, holds=isinstance(columns, tuple) and len(columns) <= MAX_ATTRIBUTES)
    assert isinstance(columns, tuple)
    known = {kind.value: kind for kind in AttributeKind}
    names = []
    for column in columns:
        match column:
            case (str(name), str(kind), tuple(values), bool(), bool()) if kind in known:
                kinds = set(map(type, values))
                holds = len(values) == n and kinds <= _TYPES[known[kind]]
                if tuple in kinds:
                    texts = chain.from_iterable(each for each in values if each is not None)
                    holds = holds and _all_of(str, texts)
                if float in kinds:
                    holds = holds and all(
                        math.isfinite(each) for each in values if each is not None
                    )
                if known[kind] is AttributeKind.DATE:
                    holds = holds and all(each is None or is_date(each) for each in values)
                _check(file, what, holds=holds)
                names.append(name)
            case _:
                _check(file, what, holds=False)
    _check(file, what, holds=len(set(names)) == len(names))


def _all_of(kind: type, values: Any) -> bool:  # noqa: ANN401 - any iterable of what msgpack gives
    return set(map(type, values)) <= {kind}


def _vocabulary(file: str, parts: object, n_tokens: int) -> AttributeVocabulary:
    """The vocabulary, which gives every token of the towers one value."""

    def check(*, holds: bool) -> None:
        _check(file, "has attributes that are no vocabulary", holds=holds)

    check(holds=isinstance(parts, dict) and parts.keys() == {"columns", "tokens", "edges"})
    assert isinstance(parts, dict)
    lists = (parts["columns"], parts["tokens"], parts["edges"])
    check(holds=_all_of(tuple, lists) and len({len(each) for each in lists}) == 1)
    columns, tokens, edges = lists
    check(holds=_all_of(str, columns) and len(set(columns)) == len(columns))
    check(holds=_all_of(dict, tokens) and all(_all_of(str, values) for values in tokens))
    numbers = list(chain.from_iterable(values.values() for values in tokens))
    check(holds=_all_of(int, numbers) and sorted(numbers) == list(range(n_tokens)))
    check(holds=all(each is None or _are_edges(each) for each in edges))
    return AttributeVocabulary(columns, tokens, edges)


def _are_edges(values: object) -> bool:
    """Numbers that do not fall, at least one."""
    if not isinstance(values, tuple) or not values or not all(map(_is_number, values)):
        return False
    return all(low <= high for low, high in pairwise(values))


def _unpacked(release: Release, name: str, most_bytes: int, most_entries: int) -> Any:  # noqa: ANN401 - checked by the caller
    """A msgpack file's value.

    most_entries: of a list or map, whose header alone would make msgpack allocate them.
    """
    body = release.read(name, most_bytes)
    limits = {"max_array_len": most_entries, "max_map_len": most_entries, "max_ext_len": 0}
    try:
        return msgpack.unpackb(body, use_list=False, **limits)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        path = release.directory / name
        raise CorruptArtefact(
            f"{path} is no msgpack ({error!r}): publish the release again"
        ) from error


def _table(items: BinaryIO, *neighbours: BinaryIO) -> ItemTable:
    """neighbours: the files of rows, weights and units."""
    dtypes = {"moments": "<f8"} | dict.fromkeys(_LABELS, "<i4")
    dtypes |= dict.fromkeys((f"{name}_weights" for name in _LABELS), "<f4")
    columns = read_npz(items, dtypes | dict.fromkeys((*_TABLE_COLUMNS, *_KIND_COLUMNS), "<f4"))
    moments, is_target = columns.pop("moments"), columns.pop("is_target")
    strength = columns.pop("strength")
    weights = {name: columns.pop(f"{name}_weights") for name in _LABELS}
    n = len(columns["popularity"]) - 1
    shapes = {name: array.shape for name, array in columns.items()}
    ranks = all(array.ndim == 1 + (name in _WIDE) for name, array in columns.items())
    lengths = n >= 1 and all(len(array) == n + 1 for array in columns.values())
    holds = ranks and lengths and moments.shape == (2,)
    _check(items.name, f"has columns of shapes {shapes}", holds=holds)
    labels = {name: _labels(items.name, name, columns.pop(name), weights[name]) for name in _LABELS}
    for name, array in columns.items():
        _check_column(items.name, name, array)
    _check(items.name, f"has moments {moments.tolist()}", holds=_are_moments(moments))
    # Every kind of uint8 may stand in a state.
    holds = is_target.ndim == 1 and 1 <= len(is_target) <= MAX_KINDS and _are_flags(is_target)
    _check(items.name, f"has kinds of events of shape {is_target.shape}", holds=holds)
    holds = strength.shape == is_target.shape and bool(((strength > 0) & (strength <= 1)).all())
    _check(items.name, f"has strengths of kinds {strength.tolist()}", holds=holds)
    mean, scale = (float(value) for value in moments)
    return ItemTable(
        **columns,
        categories=labels["categories"],
        labels=labels["labels"],
        is_target=is_target,
        strength=strength,
        weight_mean=mean,
        weight_scale=scale,
        neighbours=_neighbours(*neighbours, n=n),
    )


def _labels(file: str, name: str, rows: Int32, weights: Float32) -> ItemLabels:
    holds = weights.ndim == 1 and len(weights) >= 1 and finite_within(weights, MAX_SHARE)
    _check(file, f"has weights of {name} beyond {MAX_SHARE:g}", holds=holds)
    _check(file, f"has a weight of no {name}", holds=float(weights[-1]) == 0)
    # A column without labels has one place for them all the same.
    holds = rows.shape[1] <= len(weights) + MAX_ATTRIBUTES
    _check(file, f"has {name} in {rows.shape[1]} places", holds=holds)
    holds = not rows.size or (int(rows.min()) >= 0 and int(rows.max()) < len(weights))
    _check(file, f"has {name} beyond {len(weights)}", holds=holds)
    return ItemLabels(rows, weights)


def _check_column(file: str, name: str, array: Float32) -> None:
    largest = MAX_VALUE
    if name in _ALWAYS_KNOWN:
        holds = finite_within(array[:-1], largest)  # the padding is NaN
    else:
        holds = finite_within(array, largest, unknown=True)
    _check(file, f"has values of {name} beyond {largest:g}", holds=holds)


def _are_flags(values: Float32) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _are_moments(moments: np.ndarray) -> bool:
    """Whether these are a mean and a scale above 0, or NaN without weights."""
    mean, scale = (float(value) for value in moments)
    if math.isnan(mean) and math.isnan(scale):
        return True
    return abs(mean) <= MAX_VALUE and 1 / MAX_VALUE <= scale <= MAX_VALUE


def _neighbours(
    rows_file: BinaryIO, weights_file: BinaryIO, units_file: BinaryIO, *, n: int
) -> Neighbours:
    rows = read_npy(rows_file, "<i4", 0, n)
    weights = read_npy(weights_file, "<u2", 0, UNITS)
    units = read_npy(units_file, "<f4", 0, MAX_UNIT)
    shape = rows.shape
    holds = len(shape) == 3 and 1 <= shape[2] <= NEIGHBOURS  # noqa: PLR2004 - relation, item, place
    # The regression alone may be left out.
    holds = holds and Relation.REGRESSION <= shape[0] <= len(Relation) and shape[1] == n + 1
    holds = holds and weights.shape == shape and units.shape == shape[:2]
    _check(rows_file.name, f"has neighbours of shape {shape}", holds=holds)
    return Neighbours(rows, weights, units)


def asked_at(bundle: Bundle, states: UserStates, moment: float | None = None) -> UserStates:
    """The states for lists of this release that are asked for at a moment.

    moment: unix seconds; None for the end of the data. Where the data's times are sequence numbers,
    it says nothing, and lists are asked for when each user's next event is to be expected.
    """
    states = replace(states, repeats=bundle.model.repeats)
    as_of = bundle.manifest.get("as_of", 0)
    if as_of < FIRST_CLOCK_TIME:
        return replace(states, now=_next_numbers(states))
    if moment is None:  # a time in the future, which a table may have by mistake, is no moment
        moment = min(as_of, bundle.manifest.get("created_at", as_of))
    return replace(states, now=np.maximum(states.now, int(moment)))


def _next_numbers(states: UserStates) -> NDArray[np.int64]:
    """int64[U]: the last sequence number of each history and its mean step, at least 1, more.

    In training a list is asked for at the event that follows.
    """
    known = states.items != MISSING
    first = np.where(known, states.times, states.now[:, None]).min(axis=1)
    last = np.where(known, states.times, 0).max(axis=1)
    step = (last - first) // np.maximum(1, known.sum(axis=1) - 1)
    return np.where(known.any(axis=1), last + np.maximum(1, step), states.now)


def state_of(
    bundle: Bundle, record: UserRecord, now: float | None = None
) -> tuple[UserStates, int]:
    """One user's state, and the number of unknown items in the record's history.

    now: unix seconds at which a list is asked for, see `asked_at`.
    """
    row_of = bundle.catalogue.row_of
    reading = read_record(record, bundle.facts.events)
    recent = [each for each in reading.events if each.event.item in row_of][-HISTORY_LENGTH:]
    n = len(recent)
    row = np.full((1, HISTORY_LENGTH), MISSING, np.int32)
    time = np.zeros((1, HISTORY_LENGTH), np.int64)
    weight = np.full((1, HISTORY_LENGTH), np.nan, np.float32)
    kind = np.zeros((1, HISTORY_LENGTH), np.uint8)
    if recent:
        row[0, -n:] = [row_of[event.item] for event, _ in recent]
        time[0, -n:] = [event.time for event, _ in recent]
        weight[0, -n:] = [np.nan if e.weight is None else e.weight for e, _ in recent]
        kind[0, -n:] = [kind for _, kind in recent]
    disliked = _rows_of(bundle, reading.disliked)
    seen = _rows_of(bundle, reading.had | reading.disliked)
    state = UserStates(
        items=row,
        times=time,
        weights=weight,
        n_events=np.array([record.n_events], np.int32),
        attributes=bundle.vocabulary.encode(dict(record.attributes or {}))[None, :],
        seen_rows=seen,
        seen_offsets=np.array([0, len(seen)], np.int64),
        kinds=kind,
        disliked_rows=disliked,
        disliked_offsets=np.array([0, len(disliked)], np.int64),
    )
    return asked_at(bundle, state, now), sum(item not in row_of for item in record.items)


def _rows_of(bundle: Bundle, items: Iterable[str]) -> Int32:
    """int32[n]: the rows of those items that the catalogue has, in order."""
    row_of = bundle.catalogue.row_of
    return np.array(sorted(row_of[item] for item in items if item in row_of), np.int32)
