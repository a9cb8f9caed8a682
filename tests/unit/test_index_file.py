"""Tests that only index files of the batch are read.

Any other is refused before FAISS sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models.index import build_index, read_index, search

N, D = 60, 5


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Sixty vectors."""
    return np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)


def inverted(vectors: np.ndarray) -> Any:
    """An index of inverted lists, as large catalogues have."""
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, 4, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = 2
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    return index


def written(path: Path, index: Any) -> bytes:
    """What FAISS writes of an index."""
    faiss.write_index(index, str(path))
    return path.read_bytes()


def read(path: Path, body: bytes) -> Any:
    """The index of these bytes."""
    path.write_bytes(body)
    with path.open("rb") as file:
        return read_index(file, N, D, 1e4)


@pytest.mark.parametrize("kind", ["flat", "inverted", "few lists are filled"])
def test_an_index_comes_back(tmp_path: Path, vectors: np.ndarray, kind: str) -> None:
    """Either kind of index searches as it did when it was built."""
    index = build_index(vectors, 4, 2) if kind == "flat" else inverted(vectors)
    if kind == "few lists are filled":
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, 16, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
        index.add(np.repeat(vectors[:1], N, axis=0))
    reread = read(tmp_path / "i", written(tmp_path / "i", index))
    assert (type(reread), reread.ntotal) == (type(index), N)
    np.testing.assert_array_equal(search(reread, vectors[7], 10), search(index, vectors[7], 10))


def other(kind: str, vectors: np.ndarray) -> Any:
    """An index that is none of a catalogue of N items."""
    made: dict[str, Callable[[], Any]] = {
        "distances": lambda: faiss.IndexFlatL2(D),
        "dimension": lambda: faiss.IndexFlatIP(D - 1),
        "products": lambda: faiss.IndexPQ(D, 5, 4),
        "graph": lambda: faiss.IndexHNSWFlat(D, 4),
        "fewer": lambda: faiss.IndexFlatIP(D),
        "not a number": lambda: faiss.IndexFlatIP(D),
    }
    index = made[kind]()
    vectors = vectors[:, : index.d][: N - (kind == "fewer")].copy()
    if kind == "not a number":
        vectors[3, 2] = np.nan
    index.train(np.repeat(vectors, 10, axis=0))
    index.add(vectors)
    return index


@pytest.mark.parametrize(
    "kind", ["distances", "dimension", "products", "graph", "fewer", "not a number"]
)
def test_another_index_is_refused(tmp_path: Path, vectors: np.ndarray, kind: str) -> None:
    """Of another kind, size or content."""
    body = written(tmp_path / "i", other(kind, vectors))
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        read(tmp_path / "i", body)


@pytest.mark.parametrize("kind", ["flat", "inverted"])
def test_every_index_number_is_checked(tmp_path: Path, vectors: np.ndarray, kind: str) -> None:
    """Any four bytes set to the largest number: refused; of vectors they are no numbers then."""
    body = written(
        tmp_path / "i", build_index(vectors, 4, 2) if kind == "flat" else inverted(vectors)
    )
    for at in range(len(body) - 4):
        with pytest.raises(CorruptArtefact):
            read(tmp_path / "i", body[:at] + b"\xff\xff\xff\x7f" + body[at + 4 :])
    for length in (0, 3, 40, len(body) - 1):
        with pytest.raises(CorruptArtefact):
            read(tmp_path / "i", body[:length])
    with pytest.raises(CorruptArtefact):
        read(tmp_path / "i", body + b"\0")
