"""The FAISS index over the item vectors: exact while that is fast, inverted lists beyond, with its recall measured."""

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
"""FAISS's own (index_write.cpp): kind, dimension, vectors, two constants, whether trained, metric."""


@dataclass(frozen=True, slots=True)
class IndexStats:
    """kind: FAISS's name of the index; n_items; recall: share of the exact top k that a search of the index finds."""

    kind: str
    n_items: int
    recall: float
    recall_at: int


def build_index(vectors: Float32, n_lists: int, n_probe: int, seed: int = 0) -> Any:  # noqa: ANN401 - FAISS has no types
    """An inner-product index over vectors float32[n, d]; `IndexFlatIP` up to EXACT_UP_TO items, else `IndexIVFFlat`."""
    faiss.omp_set_num_threads(1)
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

    An inverted index probes more lists until k are found, so that no item is out of reach.
    """
    k = min(k, index.ntotal)
    found = index.search(vector[None, :], k)[1][0]
    n_lists = getattr(index, "nlist", 0)
    n_probe = getattr(index, "nprobe", 0)
    while n_lists and n_probe < n_lists and found[-1] < 0:
        n_probe = min(n_lists, n_probe * 4)
        found = index.search(vector[None, :], k, params=_probing(n_probe))[1][0]
    kept: Int32 = found[found >= 0].astype(np.int32)
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
    """The index of n vectors of d dimensions that `faiss.write_index` wrote of one that `build_index` made.

    FAISS allocates what a file says, so every number in it is checked first; largest: of a vector's
    values.

    Raises:
        CorruptArtefact: the file is another.
    """
    faiss.omp_set_num_threads(1)
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            reader = _Reader(file, body)
            if bytes(body[:4]) == b"IxFI":
                index: Any = faiss.IndexFlatIP(d)
                vectors = reader.flat(n, d)
                reader.end()
                reader.check(
                    "has a vector that is out of range", holds=finite_within(vectors, largest)
                )
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
    """Reads an index file from its beginning to its end."""

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
        """An index's header, which must be that of a trained one of inner products."""
        found = self.numbers(_HEADER.format)
        wanted = (kind, d, n, 1 << 20, 1 << 20, 1, faiss.METRIC_INNER_PRODUCT)
        self.check(f"has the header {found}, not {wanted}", holds=found == wanted)

    def flat(self, n: int, d: int) -> Float32:
        """float32[n, d]: the vectors of a flat index."""
        self.header(b"IxFI", n, d)
        self.check("has another number of vectors", holds=self.numbers("<Q") == (n * d,))
        return self.array("<f4", n * d).reshape(n, d)

    def end(self) -> None:
        """Nothing may follow."""
        self.check("has more bytes than its index", holds=self._at == len(self._body))


def _check_lists(reader: _Reader, n: int, d: int, largest: float) -> None:
    """Of an inverted index: its centroids, and lists that hold each row once."""
    reader.header(b"IwFl", n, d)
    lists, probes = reader.numbers("<QQ")
    reader.check(
        f"has {lists} lists, {probes} probed", holds=1 <= probes <= lists <= MAX_INVERTED_LISTS
    )
    reader.check(
        "has a centroid that is out of range", holds=finite_within(reader.flat(lists, d), largest)
    )
    reader.check("has a direct map", holds=reader.numbers("<BQ") == (0, 0))
    found = reader.numbers("<4sQQ")
    reader.check(f"has inverted lists {found}", holds=found == (b"ilar", lists, 4 * d))
    sizes = _list_sizes(reader, lists)
    reader.check(
        "has lists of another number of vectors",
        holds=bool((sizes <= n).all()) and int(sizes.sum()) == n,
    )
    seen = np.zeros(n, np.bool_)
    for size in sizes[sizes > 0].tolist():
        vectors, rows = reader.array("<f4", size * d), reader.array("<i8", size)
        within = bool(((rows >= 0) & (rows < n)).all()) and finite_within(vectors, largest)
        reader.check("has a row or a vector that is out of range", holds=within)
        seen[rows] = True
    reader.check("has a row twice, and another not at all", holds=bool(seen.all()))
    reader.end()


def _list_sizes(reader: _Reader, lists: int) -> NDArray[np.uint64]:
    """uint64[lists]; FAISS writes all of them, or pairs of list and size where most are empty."""
    kind, count = reader.numbers("<4sQ")
    reader.check(
        f"has list sizes of kind {kind!r}",
        holds=(kind, count) == (b"full", lists) or kind == b"sprs",
    )
    if kind == b"full":
        return reader.array("<u8", lists)
    pairs = reader.array("<u8", count).reshape(-1, 2)
    places = pairs[:, 0]
    holds = bool((places < lists).all()) and len(np.unique(places)) == len(places)
    reader.check("has sizes of lists that it lacks", holds=holds)
    sizes = np.zeros(lists, np.uint64)
    sizes[places] = pairs[:, 1]
    return sizes
