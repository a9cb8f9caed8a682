"""Tests bundles with right checksums and wrong values.

Each wrong value is refused before the bundle serves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.models import bundle
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.store import release_files
from shortlist.recsys.store.release_files import Release


@pytest.fixture
def directory(published, tmp_path: Path) -> Path:
    """A copy of the release's bundle."""
    return Path(shutil.copytree(published.work / "bundle", tmp_path / "bundle"))


def resummed(directory: Path, **changed: object) -> Path:
    """The bundle with a manifest that agrees with its files, and these fields."""
    fields = json.loads((directory / release_files.MANIFEST).read_text()) | changed
    fields.pop("files")
    release_files.build_manifest(directory, **fields)
    return directory


def loaded(directory: Path) -> None:
    """Loads all that a serving process reads."""
    with release_files.open_verified(directory, release_files.manifest_in(directory)) as release:
        bundle.read(release)
        strata.read(release)


FIELDS: dict[str, tuple[object, ...]] = {
    "n_candidates": (None, 0, -1, 10_001, 10**30, 2.0, True, "60", [60]),
    "exploration_share": (None, -0.1, 1.1, float("nan"), float("inf"), "0.01", True),
    "list_length": (0, -1, 1001, "100", None, 10.0),
    "created_at": (-1, 2**60, 1.5, "now", None),
    "as_of": (2**70, 1.5, "now", None),
    "version": (None, 3, ["v"]),
    "importances": ([], {"a": "b"}, {"a": float("nan")}, {"a": None}, 3),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
def test_field(directory: Path, name: str, value: object) -> None:
    """A field of another type or range is reported with its value."""
    with pytest.raises(CorruptArtefact, match=rf"has {name} .*: publish the release again"):
        loaded(resummed(directory, **{name: value}))


@pytest.mark.parametrize("layout", [None, "2", [2], 2.5, True, {}])
def test_layout(directory: Path, layout: object) -> None:
    """Whatever lies where the layout should."""
    with pytest.raises(BundleMismatch, match="activate an older release"):
        loaded(resummed(directory, layout=layout))


ENTRIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no files": lambda m: m.update(files=None),
    "a list": lambda m: m.update(files=[]),
    "a text": lambda m: m["files"].update({"a.bin": "x"}),
    "no size": lambda m: m["files"]["items.npz"].pop("size"),
    "negative size": lambda m: m["files"]["items.npz"].update(size=-1),
    "true size": lambda m: m["files"]["items.npz"].update(size=True),
    "float size": lambda m: m["files"]["items.npz"].update(size=1e300),
    "another size": lambda m: m["files"]["items.npz"].update(size=7),
    "no sum": lambda m: m["files"]["items.npz"].pop("sha256"),
    "number for a sum": lambda m: m["files"]["items.npz"].update(sha256=1),
    "short sum": lambda m: m["files"]["items.npz"].update(sha256="ab"),
    "another place": lambda m: m["files"].update({"../x": m["files"]["items.npz"]}),
    "a zero byte": lambda m: m["files"].update({"a\0b": m["files"]["items.npz"]}),
    "half a character": lambda m: m["files"].update({"\ud800": m["files"]["items.npz"]}),
    "itself": lambda m: m["files"].update({"manifest.json": m["files"]["items.npz"]}),
    "a missing file": lambda m: m["files"].update({"more.bin": m["files"]["items.npz"]}),
    "many files": lambda m: m["files"].update(
        {f"f{n}": m["files"]["items.npz"] for n in range(100)}
    ),
    "one too few": lambda m: m["files"].pop("towers.npz"),
    "no index": lambda m: m["files"].pop("index.faiss"),
    "no ranker": lambda m: m["files"].pop("ranker.txt"),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_entry(directory: Path, kind: str) -> None:
    """A manifest whose entries are none, or are of other files."""
    path = directory / release_files.MANIFEST
    manifest = json.loads(path.read_text())
    ENTRIES[kind](manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtefact):
        loaded(directory)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"files": {}, "a": ' + "[" * 50 + "]" * 50 + "}", " " * (5 << 20), "1" * 5000],
)
def test_manifest_that_is_expensive_to_read(directory: Path, text: str) -> None:
    """Nested, long, or one endless number."""
    (directory / release_files.MANIFEST).write_text(text)
    with pytest.raises(CorruptArtefact, match="manifest"):
        loaded(directory)


def arrays_of(path: Path) -> dict[str, Any]:
    """The arrays of an archive, which may be changed."""
    with np.load(path) as archive:
        return {name: archive[name].copy() for name in archive.files}


def entry(value: float) -> Callable[[Any], Any]:
    """One value is another."""

    def changed(array: Any) -> Any:
        array.reshape(-1)[len(array) // 2] = value
        return array

    return changed


ARRAYS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "towers: not a number": ("towers.npz", "hidden_w", entry(np.nan)),
    "towers: infinite": ("towers.npz", "norm_g", entry(np.inf)),
    "towers: overflows": ("towers.npz", "hidden_b", entry(1e30)),
    "towers: another width": ("towers.npz", "skip_w", lambda a: a[:, :-1]),
    "towers: a vector": ("towers.npz", "hidden_w", lambda a: a[0]),
    "towers: double": ("towers.npz", "out_b", lambda a: a.astype(np.float64)),
    "towers: fewer tokens": ("towers.npz", "attributes", lambda a: a[:-1]),
    "towers: no tokens at all": ("towers.npz", "attributes", lambda a: a[:0]),
    "items: infinite": ("items.npz", "popularity", entry(np.inf)),
    "items: unknown popularity": ("items.npz", "popularity", entry(np.nan)),
    "items: infinite year": ("items.npz", "year", entry(-np.inf)),
    "items: unknown weight": ("items.npz", "categories_weights", entry(np.nan)),
    "items: weights of a table": ("items.npz", "categories_weights", lambda a: a[None]),
    "items: no weights": ("items.npz", "labels_weights", lambda a: a[:0]),
    "items: weight of none": ("items.npz", "categories_weights", lambda a: a + 1),
    "items: many places": ("items.npz", "categories", lambda a: np.repeat(a[:, :1] * 0, 9999, 1)),
    "items: one category": ("items.npz", "categories", lambda a: a[:, 0]),
    "items: category beyond": ("items.npz", "categories", lambda a: a + 1),
    "items: negative category": ("items.npz", "categories", lambda a: a - a.max() - 1),
    "items: categories of fewer": ("items.npz", "categories", lambda a: a[:-1]),
    "items: shorter column": ("items.npz", "age", lambda a: a[:-1]),
    "items: three moments": ("items.npz", "moments", lambda a: np.append(a, 1.0)),
    "items: no scale": ("items.npz", "moments", lambda a: a * [1, 0]),
    "items: one unknown moment": ("items.npz", "moments", lambda a: a * [1, np.nan]),
    "items: negative scale": ("items.npz", "moments", lambda a: a * [1, -1]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_array(directory: Path, kind: str) -> None:
    """A value, shape or type that training does not write."""
    name, array, change = ARRAYS[kind]
    arrays = arrays_of(directory / name)
    np.savez(directory / name, **arrays | {array: change(arrays[array])})
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        loaded(resummed(directory))


TABLES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "items: not a number": ("item_vectors", entry(np.nan)),
    "items: overflow": ("item_vectors", entry(1e30)),
    "items: negative overflow": ("item_vectors", entry(-1e30)),
    "items: one less": ("item_vectors", lambda a: a[:-1]),
    "items: none": ("item_vectors", lambda a: a[:0]),
    "items: narrower": ("item_vectors", lambda a: a[:, :-1]),
    "items: one more axis": ("item_vectors", lambda a: a[None]),
    "history: infinite": ("history_vectors", entry(np.inf)),
    "history: one less": ("history_vectors", lambda a: a[:-1]),
    "history: narrower": ("history_vectors", lambda a: a[:, :-1]),
    "history: a vector": ("history_vectors", lambda a: a[0]),
    "history: a scalar": ("history_vectors", lambda a: a[0, 0]),
    "neighbours: row beyond": ("neighbour_rows", lambda a: np.where(a == a.max(), a.max() + 1, a)),
    "neighbours: negative row": ("neighbour_rows", lambda a: a - 1),
    "neighbours: fewer items": ("neighbour_rows", lambda a: a[:, :-1]),
    "neighbours: fewer relations": ("neighbour_rows", lambda a: a[:-2]),
    "neighbours: more relations": ("neighbour_rows", lambda a: np.concatenate((a, a[:1]))),
    "neighbours: no neighbours": ("neighbour_rows", lambda a: a[:, :, :0]),
    "neighbours: flat": ("neighbour_rows", lambda a: a.reshape(-1)),
    "neighbours: wide": ("neighbour_rows", lambda a: a.astype(np.int64)),
    "neighbours: other shape": ("neighbour_weights", lambda a: a[:, :, :-1]),
    "neighbours: weights of one relation less": ("neighbour_weights", lambda a: a[:-1]),
    "neighbours: not a number": ("neighbour_units", lambda a: a * np.float32(np.nan)),
    "neighbours: infinite": ("neighbour_units", lambda a: a + np.float32(np.inf)),
    "neighbours: negative": ("neighbour_units", lambda a: -a),
    "neighbours: huge": ("neighbour_units", lambda a: a + np.float32(100)),
    "neighbours: units of fewer items": ("neighbour_units", lambda a: a[:, :-1]),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("mapped", [False, True])
def test_table_of_items(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, mapped: bool
) -> None:
    """What has a row for each item, read or mapped."""
    monkeypatch.setattr("shortlist.recsys.models.arrays.IN_MEMORY", 0 if mapped else 1 << 30)
    name, change = TABLES[kind]
    path = directory / f"{name}.npy"
    before = np.load(path)
    changed = change(before.copy())
    np.save(path, changed if kind.endswith("wide") else changed.astype(before.dtype))
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        loaded(resummed(directory))


def catalog(**changed: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The catalogue with changed columns."""
    return lambda content: (
        content | {name: change(content[name]) for name, change in changed.items()}
    )


def vocabulary(**changed: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The catalogue with a changed vocabulary."""
    return catalog(
        attributes=lambda content: (
            content | {name: change(content[name]) for name, change in changed.items()}
        )
    )


MESSAGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "catalogue: a list": ("catalog.msgpack", lambda _: [1, 2]),
    "catalogue: no ids": (
        "catalog.msgpack",
        lambda content: {name: content[name] for name in content if name != "ids"},
    ),
    "catalogue: one more": ("catalog.msgpack", lambda content: content | {"more": 1}),
    "catalogue: fewer ids": ("catalog.msgpack", catalog(ids=lambda ids: ids[:-1])),
    "catalogue: an id twice": ("catalog.msgpack", catalog(ids=lambda ids: [*ids[:-1], ids[0]])),
    "catalogue: a number": ("catalog.msgpack", catalog(ids=lambda ids: [*ids[:-1], 7])),
    "catalogue: a title of bytes": (
        "catalog.msgpack",
        catalog(titles=lambda titles: [*titles[:-1], b"x"]),
    ),
    "catalogue: no title": ("catalog.msgpack", catalog(titles=lambda titles: [*titles[:-1], None])),
    "catalogue: a category alone": (
        "catalog.msgpack",
        catalog(categories=lambda content: [*content[:-1], "Drama"]),
    ),
    "catalogue: a list as category": (
        "catalog.msgpack",
        catalog(categories=lambda content: [*content[:-1], [["Drama"]]]),
    ),
    "attributes: none": ("catalog.msgpack", catalog(attributes=lambda _: None)),
    "attributes: a column less": (
        "catalog.msgpack",
        vocabulary(columns=lambda content: content[:-1]),
    ),
    "attributes: a column twice": (
        "catalog.msgpack",
        vocabulary(columns=lambda content: [content[0]] * len(content)),
    ),
    "attributes: a token twice": (
        "catalog.msgpack",
        vocabulary(tokens=lambda content: [content[0]] * len(content)),
    ),
    "attributes: a token beyond": (
        "catalog.msgpack",
        vocabulary(tokens=lambda content: [content[0] | {"x": 99}, *content[1:]]),
    ),
    "attributes: a token of text": (
        "catalog.msgpack",
        vocabulary(tokens=lambda content: [{"0": "x"}, *content[1:]]),
    ),
    "attributes: falling edges": (
        "catalog.msgpack",
        vocabulary(edges=lambda content: [content[0][::-1], *content[1:]]),
    ),
    "attributes: an edge that is none": (
        "catalog.msgpack",
        vocabulary(edges=lambda content: [[float("nan")], *content[1:]]),
    ),
    "popular: no bytes": ("popular.msgpack", lambda _: [1, 2, 3]),
    "popular: too few": ("popular.msgpack", lambda content: content[:-4]),
    "popular: a row twice": ("popular.msgpack", lambda content: content[:4] + content[:-4]),
    "popular: a row beyond": (
        "popular.msgpack",
        lambda content: np.int32(10**6).tobytes() + content[4:],
    ),
    "popular: a negative row": (
        "popular.msgpack",
        lambda content: np.int32(-1).tobytes() + content[4:],
    ),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_message(directory: Path, kind: str) -> None:
    """A type, length or value that the batch does not write."""
    name, change = MESSAGES[kind]
    path = directory / name
    path.write_bytes(msgpack.packb(change(msgpack.unpackb(path.read_bytes()))))
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        loaded(resummed(directory))


UNREADABLE = {
    "no message": b"\xc1",
    "billions of entries": b"\xdd\xff\xff\xff\xff" * 200,
    "cut short": b"\x81\xa1",
    "nested": b"\x91" * 5000,
    "an own type": b"\xc7\x08\x7f" + b"x" * 8,
}


@pytest.mark.parametrize(
    "name", ["catalog.msgpack", "popular.msgpack", "strata.msgpack", "ranker.txt"]
)
@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\xdd\xff\xff\xff\xff" * 200,
        b"\x81\xa1",
        b"\x91" * 5000,
        b"\xc7\x08\x7f" + b"x" * 8,
    ],
)
def test_no_message(directory: Path, name: str, body: bytes) -> None:
    """No msgpack, lists of billions, nested lists, or types of one's own."""
    (directory / name).write_bytes(body)
    with pytest.raises(CorruptArtefact):
        loaded(resummed(directory))


def test_file_larger_than_is_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would fill the memory is refused by its size."""
    monkeypatch.setattr(bundle, "CATALOGUE_BYTES", 100)
    with pytest.raises(CorruptArtefact, match="at most 100 are read"):
        loaded(directory)


def test_empty_ranker_is_none(directory: Path) -> None:
    """The batch writes it where there was nothing to learn."""
    (directory / "ranker.txt").write_text("")
    assert bundle.load(resummed(directory)).model.ranker is None


def test_file_not_named_by_the_manifest(directory: Path) -> None:
    """Strata that its manifest does not name are not read."""
    manifest = json.loads((directory / release_files.MANIFEST).read_text())
    del manifest["files"]["strata.msgpack"]
    with release_files.open_verified(directory, manifest) as release:
        assert strata.read(release) == []


HISTOGRAMS: dict[str, Callable[[list[Any]], object]] = {
    "rows": lambda content: content.__setitem__(1, "many"),
    "negative rows": lambda content: content.__setitem__(1, -1),
    "name": lambda content: content[2][0].__setitem__(0, 7),
    "bounds": lambda content: content[2][0].__setitem__(1, 5),
    "falling bounds": lambda content: content[2][0].__setitem__(1, content[2][0][1][::-1]),
    "mixed bounds": lambda content: content[2][0].__setitem__(1, ["a", *content[2][0][1][1:]]),
    "a bound that is none": lambda content: content[2][0][1].__setitem__(0, float("nan")),
    "ordered": lambda content: content[2][0].__setitem__(2, "yes"),
    "too few cells": lambda content: content[2][0].__setitem__(4, content[2][0][4][:-1]),
    "a negative count": lambda content: content[2][0][3].__setitem__(0, -1),
    "a huge count": lambda content: content[2][0][4].__setitem__(0, 2**60),
    "a part less": lambda content: content[2][0].pop(),
}


@pytest.mark.parametrize("kind", HISTOGRAMS)
def test_histograms(kind: str) -> None:
    """Cells that no training gives."""
    rows = np.random.default_rng(0).normal(size=500)
    content = msgpack.unpackb(skew.pack(skew.histograms({"a": rows, "b": rows})))
    HISTOGRAMS[kind](content)
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        skew.unpack(msgpack.packb(content))


STRATA: dict[str, Callable[[list[Any]], object]] = {
    "falling": lambda content: content.reverse(),
    "many": lambda content: content.extend([content[-1]] * 9),
    "not a number": lambda content: content[0].__setitem__(0, float("nan")),
    "other features": lambda content: content[0].__setitem__(
        2, skew.pack(skew.histograms({"a": np.arange(50.0)}))
    ),
}


@pytest.mark.parametrize("kind", STRATA)
def test_strata(directory: Path, kind: str) -> None:
    """Ranges that do not follow each other, or histograms of other features."""
    path = directory / strata.FILE
    content = msgpack.unpackb(path.read_bytes())
    content = content * 2 if len(content) < 2 else content
    STRATA[kind](content)
    path.write_bytes(msgpack.packb(content))
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        loaded(resummed(directory))


def test_release_is_closed(directory: Path) -> None:
    """Its files are closed after, also where one of them is refused."""
    manifest = release_files.manifest_in(directory)
    with release_files.open_verified(directory, manifest) as release:
        files = list(release.files.values())
    assert isinstance(release, Release)
    assert all(file.closed for file in files)
