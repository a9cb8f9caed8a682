"""Builds, searches and measures the FAISS index of items.

It is exact while that is fast, and has inverted lists beyond.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models.arrays import finite_within
from shortlist.recsys.models.interactions import Float32, Int32

EXACT_UP_TO = 100_000
"""Catalogues up to this size are searched exactly."""

TRAINING_POINTS = 64
"""Vectors per inverted list that its training looks at."""

MAX_INVERTED_LISTS = 65_536
"""The most that `FAISS_N_LISTS` allows."""

_HEADER = struct.Struct("<4siqqqBi")
"""FAISS's (index_write.cpp): kind, dimension, vectors, two constants, whether trained, metric."""

_FLAT, _INVERTED = b"IxFI", b"IwFl"
"""FAISS's codes of the two kinds that `build_index` makes."""

_DUMMY = 1 << 20
"""FAISS writes this constant twice into every header."""


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The measured quality of an index.

    kind: FAISS's name of the index.
    recall: share of the exact best `recall_at` items that it finds.
    """

    kind: str
    n_items: int
    recall: float
    recall_at: int


def build_index(vectors: Float32, n_lists: int, n_probe: int, seed: int = 0) -> Any:  # noqa: ANN401 - FAISS has no types
    """An inner-product index over vectors float32[n, d].

    It is an `IndexFlatIP` up to EXACT_UP_TO items, else an `IndexIVFFlat`.
    """
    faiss.omp_set_num_threads(1)  # one query takes less than waking the threads
    n, d = vectors.shape
    if n <= EXACT_UP_TO:
        index: Any = faiss.IndexFlatIP(d)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, n_lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = n_probe
        index.cp.seed = seed
        index.cp.max_points_per_centroid = TRAINING_POINTS
        index.train(vectors)
    index.add(vectors)
    return index


def search(index: Any, vector: Float32, k: int) -> Int32:  # noqa: ANN401 - likewise
    """int32[<= k]: rows of the best items for one user vector float32[d], best first.

    An inverted index probes more lists until it has k items, so that no item is out of reach.
    """
    k = min(k, index.ntotal)
    rows = index.search(vector[None, :], k)[1][0]
    n_lists = getattr(index, "nlist", 0)
    n_probe = getattr(index, "nprobe", 0)
    while n_lists and n_probe < n_lists and rows[-1] < 0:
        n_probe = min(n_lists, n_probe * 4)
        rows = index.search(vector[None, :], k, params=_probing(n_probe))[1][0]
    kept: Int32 = rows[rows >= 0].astype(np.int32)
    return kept


def _probing(n_probe: int) -> Any:  # noqa: ANN401 - likewise
    parameters: Any = faiss.SearchParametersIVF()
    parameters.nprobe = n_probe
    return parameters


def measure(index: Any, vectors: Float32, queries: Float32, k: int) -> IndexStats:  # noqa: ANN401 - likewise
    """The recall at k of `index` against exact search, over queries float32[q, d]."""
    kind = type(index).__name__
    k = min(k, len(vectors))
    if kind.startswith("IndexFlat") or len(queries) == 0:
        return IndexStats(kind, len(vectors), 1.0, k)
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    truth = exact.search(queries, k)[1]
    shares = [np.isin(search(index, q, k), t).mean() for q, t in zip(queries, truth, strict=True)]
    return IndexStats(kind, len(vectors), float(np.mean(shares)), k)


def read_index(file: BinaryIO, n: int, d: int, largest: float) -> Any:  # noqa: ANN401 - FAISS has no types
    """Reads a serialized index of `build_index`, of n vectors of d dimensions.

    FAISS allocates what a file says, so every number in it is checked first.
    largest: the largest value of a vector.

    Raises:
        CorruptArtefact: the file is not such an index.
    """
    faiss.omp_set_num_threads(1)
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            reader = _Reader(file, body)
            if bytes(body[:4]) == _FLAT:
                vectors = reader.flat(n, d)
                reader.end()
                holds = finite_within(vectors, largest)
                reader.check("has a vector that is out of range", holds=holds)
                index: Any = faiss.IndexFlatIP(d)
                index.add(vectors)
                return index
            _check_lists(reader, n, d, largest)
    except (struct.error, ValueError) as error:
        raise CorruptArtefact(
            f"{file.name} is no index ({error}): publish the release again"
        ) from error
    file.seek(0)
    return faiss.read_index(faiss.PyCallbackIOReader(file.read))  # type: ignore[attr-defined]


class _Reader:
    """Reads and checks an index file from its beginning to its end."""

    def __init__(self, file: BinaryIO, body: mmap.mmap) -> None:
        self._name, self._body, self._at = file.name, body, 0

    def check(self, what: str, *, holds: bool) -> None:
        """Refuses the file where something does not hold."""
        if not holds:
            raise CorruptArtefact(f"{self._name} {what}: publish the release again")

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Unpacks the next bytes."""
        shape = struct.Struct(form)
        self._at += shape.size
        return shape.unpack_from(self._body, self._at - shape.size)

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """The next values, copied: the map is closed when all is read."""
        size = count * np.dtype(dtype).itemsize
        self.check("is cut short", holds=0 <= size <= len(self._body) - self._at)
        self._at += size
        return np.frombuffer(self._body[self._at - size : self._at], dtype)

    def header(self, kind: bytes, n: int, d: int) -> None:
        """Checks an index's header: of a trained index of inner products."""
        header = self.numbers(_HEADER.format)
        expected = (kind, d, n, _DUMMY, _DUMMY, 1, faiss.METRIC_INNER_PRODUCT)
        self.check(f"has the header {header}, not {expected}", holds=header == expected)

    def flat(self, n: int, d: int) -> Float32:
        """float32[n, d]: the vectors of a flat index."""
        self.header(_FLAT, n, d)
        self.check("has another number of vectors", holds=self.numbers("<Q") == (n * d,))
        return self.array("<f4", n * d).reshape(n, d)

    def end(self) -> None:
        """Refuses bytes after the index."""
        self.check("has more bytes than its index", holds=self._at == len(self._body))


def _check_lists(reader: _Reader, n: int, d: int, largest: float) -> None:
    """Checks an inverted index: its centroids, and that its lists hold each row once."""
    reader.header(_INVERTED, n, d)
    lists, probes = reader.numbers("<QQ")
    holds = 1 <= probes <= lists <= MAX_INVERTED_LISTS
    reader.check(f"has {lists} lists, {probes} probed", holds=holds)
    holds = finite_within(reader.flat(lists, d), largest)
    reader.check("has a centroid that is out of range", holds=holds)
    reader.check("has a direct map", holds=reader.numbers("<BQ") == (0, 0))
    header = reader.numbers("<4sQQ")
    reader.check(f"has inverted lists {header}", holds=header == (b"ilar", lists, 4 * d))
    sizes = _list_sizes(reader, lists)
    holds = bool((sizes <= n).all()) and int(sizes.sum()) == n
    reader.check("has lists of another number of vectors", holds=holds)
    seen = np.zeros(n, np.bool_)
    for size in sizes[sizes > 0].tolist():
        vectors, rows = reader.array("<f4", size * d), reader.array("<i8", size)
        within = bool(((rows >= 0) & (rows < n)).all()) and finite_within(vectors, largest)
        reader.check("has a row or a vector that is out of range", holds=within)
        seen[rows] = True
    reader.check("has a row twice, and another not at all", holds=bool(seen.all()))
    reader.end()


def _list_sizes(reader: _Reader, lists: int) -> NDArray[np.uint64]:
    """uint64[lists]: the sizes of the lists.

    FAISS writes all of them, or pairs of list and size where most are empty.
    """
    kind, count = reader.numbers("<4sQ")
    holds = (kind, count) == (b"full", lists) or kind == b"sprs"
    reader.check(f"has list sizes of kind {kind!r}", holds=holds)
    if kind == b"full":
        return reader.array("<u8", lists)
    pairs = reader.array("<u8", count).reshape(-1, 2)
    places = pairs[:, 0]
    holds = bool((places < lists).all()) and len(np.unique(places)) == len(places)
    reader.check("has sizes of lists that it lacks", holds=holds)
    sizes = np.zeros(lists, np.uint64)
    sizes[places] = pairs[:, 1]
    return sizes
