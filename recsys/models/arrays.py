"""Reads npy and npz files from untrusted sources.

The header is checked before a byte is allocated, since `numpy.load` believes it:
it allocates what the shape says, unpacks what was compressed, and evaluates the header as a Python
literal. Here a header must be one that `numpy.save` writes for a little-endian array in C order, of
the expected dtype, and the file must have exactly the bytes of that shape.
"""

from __future__ import annotations

import math
import mmap
import re
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import CorruptArtefact

IN_MEMORY = 32 << 20
"""Arrays up to this many bytes are read, larger ones mapped.

A mapped file that somebody cuts short kills the process that reads it (SIGBUS), and few megabytes
are not worth that.
"""

_PREFIX = re.compile(rb"\x93NUMPY(?:\x01\x00(..)|[\x02\x03]\x00(..)\x00\x00)", re.DOTALL)
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,12}, ?)*(?:\d{1,12})?)\), \} *\n"
)
_MAX_HEADER_BYTES = 1 << 16  # all that the two bytes of a version 1 length can say
_MEMBERS = 64
"""Arrays of an npz file that are looked at: far more than any file here has."""

_CHECKED = 4 << 20
"""Values of a mapped array that are checked at once."""


_ZIP_ERRORS = (
    zipfile.BadZipFile,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    OverflowError,
    OSError,
)
"""zipfile raises all of these on files that are no zip archives."""


def read_npz(file: BinaryIO, dtypes: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name.

    dtypes: the names that it must have, no more and no fewer, each with its dtype ("<f4").

    Raises:
        CorruptArtefact: the file is not what `numpy.savez` writes of such arrays.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = sorted(member.filename for member in members[:_MEMBERS])
            if names != sorted(f"{name}.npy" for name in dtypes):
                raise _corrupt(file, f"has arrays {names}, not {sorted(dtypes)}")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise _corrupt(file, "is compressed, and may unpack to any size")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                arrays[name] = _array(file, archive.read(member), dtypes[name])
            return arrays
    except _ZIP_ERRORS as error:
        raise _corrupt(file, f"is no npz archive ({error!r})") from error


def read_npy(file: BinaryIO, dtype: str, low: float, high: float) -> NDArray[Any]:
    """The array of an npy file, read-only; mapped above IN_MEMORY bytes.

    Raises:
        CorruptArtefact: the file is not what `numpy.save` writes of such an array, or a value is
            not from low to high.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if size <= IN_MEMORY:
        array = _array(file, file.read(), dtype)
        _check_range(file, array, low, high)
        return array
    start, shape = _header_of(file, file.read(_MAX_HEADER_BYTES), dtype)
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    array = _shaped(file, mapped, size, start, shape, dtype)
    values = array.reshape(-1)
    for at in range(0, len(values), _CHECKED):
        _check_range(file, values[at : at + _CHECKED], low, high)
        # Otherwise each page that was looked at counts as the process's memory.
        mapped.madvise(mmap.MADV_DONTNEED)
    return array


def _check_range(file: BinaryIO, values: NDArray[Any], low: float, high: float) -> None:
    if values.size and not (values.min() >= low and values.max() <= high):  # NaN fails both
        raise _corrupt(
            file, f"has values from {values.min()} to {values.max()}, not from {low:g} to {high:g}"
        )


def _array(file: BinaryIO, body: bytes, dtype: str) -> NDArray[Any]:
    start, shape = _header_of(file, body[:_MAX_HEADER_BYTES], dtype)
    return _shaped(file, body, len(body), start, shape, dtype)


def _header_of(file: BinaryIO, head: bytes, dtype: str) -> tuple[int, tuple[int, ...]]:
    """The position of the data, and its shape."""
    prefix = _PREFIX.match(head)
    if prefix is None:
        raise _corrupt(file, "does not begin as an npy file")
    length = int.from_bytes(prefix[1] if prefix[1] is not None else prefix[2], "little")
    start = prefix.end() + length
    header = _HEADER.fullmatch(head[prefix.end() : start])
    if header is None:
        raise _corrupt(file, f"has the npy header {head[prefix.end() : start][:80]!r}")
    if header[1] != dtype.encode():
        raise _corrupt(file, f"has dtype {header[1].decode()}, not {dtype}")
    return start, tuple(int(n) for n in header[2].replace(b" ", b"").split(b",") if n)


def _shaped(
    file: BinaryIO,
    body: bytes | mmap.mmap,
    size: int,
    start: int,
    shape: tuple[int, ...],
    dtype: str,
) -> NDArray[Any]:
    count = math.prod(shape)
    if size != start + count * np.dtype(dtype).itemsize:
        raise _corrupt(file, f"has {size - start} bytes for an array of shape {shape}")
    try:
        return np.frombuffer(body, dtype, count, start).reshape(shape)
    except ValueError as error:  # an array of no bytes, whose other axes are beyond numpy's count
        raise _corrupt(file, f"has the shape {shape}") from error


def finite_within(values: NDArray[Any], largest: float, *, unknown: bool = False) -> bool:
    """Whether every value is a number of at most this size.

    unknown: NaN may stand for none. No memory is allocated, whatever the array's size.
    """
    if values.size == 0:
        return True
    if unknown:
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        return bool(np.isnan(low) or (low >= -largest and high <= largest))
    return bool(values.min() >= -largest and values.max() <= largest)  # NaN fails both


def _corrupt(file: BinaryIO, what: str) -> CorruptArtefact:
    return CorruptArtefact(
        f"{getattr(file, 'name', 'an array file')} {what}: publish the release again"
    )
