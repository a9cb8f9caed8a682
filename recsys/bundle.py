"""A release's artefacts as a directory: written by the batch, verified and memory-mapped by whoever serves.

Nothing in it can run: npy without pickle, msgpack, FAISS's and LightGBM's own formats, and each file's sha256 is checked
against the manifest before any of it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import msgpack
import numpy as np

from recsys import artefacts
from recsys.catalogue import AttributeVocabulary, Catalogue
from recsys.errors import BundleMismatch
from recsys.events import HISTORY_LENGTH, MISSING, Float32, Int32, UserStates
from recsys.features import ItemTable, feature_hash
from recsys.neighbours import Neighbours
from recsys.pipeline import Model, by_trend, new_items
from recsys.ranker import Ranker
from recsys.towers import Towers

LAYOUT = 2
"""Changes when older code could no longer read the files."""

_COLUMNS = ("popularity", "recent", "trend", "age", "weight", "year", "membership")


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
    # Not faiss.write_index, which says nothing where the disk is full and the last block does not fit.
    (directory / "index.faiss").write_bytes(faiss.serialize_index(model.index).tobytes())
    (directory / "ranker.txt").write_text(ranker_text)
    catalog: dict[str, Any] = {"ids": catalogue.ids, "titles": catalogue.titles, "categories": catalogue.categories}
    catalog["attributes"] = asdict(vocabulary)
    (directory / "catalog.msgpack").write_bytes(msgpack.packb(catalog))
    (directory / "popular.msgpack").write_bytes(msgpack.packb(_by_popularity(table).tobytes()))
    fixed = {"layout": LAYOUT, "feature_hash": feature_hash(), "n_candidates": model.n_candidates}
    fixed["exploration_share"] = model.exploration_share
    return artefacts.build_manifest(directory, **fixed, **fields)


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
    with np.load(directory / "towers.npz", allow_pickle=False) as arrays:
        return Towers(**{name: arrays[name] for name in arrays.files})


def _by_popularity(table: ItemTable) -> Int32:
    n = len(table.popularity) - 1
    return np.lexsort((np.arange(n), -table.popularity[:n])).astype(np.int32)


def load(directory: Path) -> Bundle:
    """Verifies and loads a bundle.

    Raises:
        CorruptArtefact: a file is missing, or is not what the manifest says.
        BundleMismatch: the bundle has another layout or other features than this code.
    """
    manifest = artefacts.verify(directory)
    found = (manifest.get("layout"), manifest.get("feature_hash"))
    if found != (LAYOUT, feature_hash()):
        message = (
            f"bundle {manifest.get('version')} has layout and features {found}, this code {(LAYOUT, feature_hash())}: "
            "rebuild it, or activate an older release"
        )
        raise BundleMismatch(message)
    catalog = msgpack.unpackb((directory / "catalog.msgpack").read_bytes(), use_list=False)
    told = catalog["attributes"]
    ids = list(catalog["ids"])
    items = Items(ids, list(catalog["titles"]), list(catalog["categories"]), {i: row for row, i in enumerate(ids)})
    popular = np.frombuffer(msgpack.unpackb((directory / "popular.msgpack").read_bytes()), np.int32)
    vocabulary = AttributeVocabulary(told["columns"], told["tokens"], told["edges"])
    return Bundle(
        manifest,
        items,
        vocabulary,
        _load_model(directory, int(manifest["n_candidates"]), float(manifest["exploration_share"])),
        popular,
    )


def _load_model(directory: Path, n_candidates: int, exploration_share: float) -> Model:
    table = load_table(directory)
    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(directory / "index.faiss"))
    text = (directory / "ranker.txt").read_text()
    ranker = Ranker(text) if text else None
    return Model(load_towers(directory), index, table, ranker, n_candidates, by_trend(table), exploration_share, new_items(table))


def load_table(directory: Path) -> ItemTable:
    """Reads what `save_table` wrote; the neighbours are memory-mapped."""
    mapped = (np.load(directory / f"neighbour_{part}.npy", mmap_mode="r", allow_pickle=False) for part in ("rows", "weights"))
    rows, weights = (part.view(np.ndarray) for part in mapped)  # still mapped, without memmap's cost at every slice
    with np.load(directory / "items.npz", allow_pickle=False) as arrays:
        mean, scale = (float(v) for v in arrays["moments"])
        columns: dict[str, Float32] = {c: arrays[c] for c in _COLUMNS}
    return ItemTable(**columns, weight_mean=mean, weight_scale=scale, neighbours=Neighbours(rows, weights))


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
    known = [(row_of[i], t, w) for i, t, w in zip(items, times, weights, strict=True) if i in row_of]
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
