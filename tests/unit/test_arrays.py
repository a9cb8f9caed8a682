"""Tests reading of untrusted array files.

They are read as the expected arrays, or refused before allocation.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models import arrays
from shortlist.recsys.models.arrays import finite_within, read_npy, read_npz


def saved(path: Path, array: Any) -> Path:
    """A file that `numpy.save` wrote."""
    np.save(path, array)
    return path


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_saved_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """Read or mapped, it is what was saved, and stays so when the file is closed."""
    monkeypatch.setattr(arrays, "IN_MEMORY", in_memory)
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    with saved(tmp_path / "a.npy", array).open("rb") as file:
        array_read = read_npy(file, "<f4", 0, 59)
    np.testing.assert_array_equal(array_read, array)
    assert (array_read.dtype, array_read.flags.writeable) == (np.float32, False)


def header(
    shape: str = "(2, 3)", descr: str = "'<f4'", order: str = "False", data: bytes = b"\0" * 24
) -> bytes:
    """An npy file of these words."""
    text = (
        f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(117)
        + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


BROKEN = {
    "empty": b"",
    "no magic": b"x" * 200,
    "another version": b"\x93NUMPY\x09\x00" + header()[8:],
    "cut in its header": header()[:40],
    "cut short": header()[:-1],
    "longer": header() + b"\0",
    "objects": header(descr="'|O'"),
    "big-endian": header(descr="'>f4'"),
    "another type": header(descr="'<f8'"),
    "a record": header(descr="[('a', '<f4')]"),
    "columns first": header(order="True"),
    "huge": header(shape="(1000000000, 1000000000, 1000000000)"),
    "huge, and empty": header(shape="(0, 999999999999, 999999999999)", data=b""),
    "negative": header(shape="(-2, -3)"),
    "not a number": header(shape="(2, x)"),
    "a call": header(shape="(__import__('os').getpid(), 3)"),
    "nested": header(shape="(" * 90 + ")" * 20),
    "no shape": header().replace(b"'shape': (2, 3), ", b" " * 17),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_broken_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, in_memory: int
) -> None:
    """Refused with the file's name and the remedy."""
    monkeypatch.setattr(arrays, "IN_MEMORY", in_memory)
    path = tmp_path / "a.npy"
    path.write_bytes(BROKEN[kind])
    with (
        path.open("rb") as file,
        pytest.raises(CorruptArtefact, match=r"a\.npy .*: publish the release again"),
    ):
        read_npy(file, "<f4", -1, 1)


@pytest.mark.parametrize("value", [-1, 60, np.nan, np.inf])
@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_value_out_of_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, in_memory: int
) -> None:
    """One value is enough, wherever it is."""
    monkeypatch.setattr(arrays, "IN_MEMORY", in_memory)
    monkeypatch.setattr(arrays, "_CHECKED", 7)
    array = np.arange(60, dtype=np.float32)
    array[41] = value
    with (
        saved(tmp_path / "a.npy", array).open("rb") as file,
        pytest.raises(CorruptArtefact, match="not from 0 to 59"),
    ):
        read_npy(file, "<f4", 0, 59)


WANTED = {"a": "<f4", "b": "<f8"}


def archive(**named: Any) -> io.BytesIO:
    """What `numpy.savez` writes."""
    out = io.BytesIO()
    np.savez(out, **named)
    return out


def test_saved_archive() -> None:
    """Every array by its name."""
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.5])
    array_read = read_npz(archive(a=a, b=b), WANTED)
    np.testing.assert_array_equal(array_read["a"], a)
    np.testing.assert_array_equal(array_read["b"], b)


def compressed() -> io.BytesIO:
    """A bomb: 100 MB of zeros in 100 kB."""
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(25_000_000, np.float32), b=np.zeros(1))
    return out


def doubled() -> io.BytesIO:
    """Two members of one name."""
    out = archive(a=np.zeros(1, np.float32))
    with zipfile.ZipFile(out, "a") as zipped, pytest.warns(UserWarning, match="Duplicate"):
        zipped.writestr("a.npy", b"")
    return out


ARCHIVES = {
    "no archive": lambda: io.BytesIO(b"x" * 100),
    "empty": lambda: io.BytesIO(b""),
    "one is missing": lambda: archive(a=np.zeros(1, np.float32)),
    "one too many": lambda: archive(a=np.zeros(1, np.float32), b=np.zeros(1), c=np.zeros(1)),
    "another type": lambda: archive(a=np.zeros(1), b=np.zeros(1)),
    "compressed": compressed,
    "doubled": doubled,
    "many": lambda: archive(**{f"a{number}": np.zeros(1) for number in range(200)}),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_broken_archive(kind: str) -> None:
    """Refused before a member is unpacked."""
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        read_npz(ARCHIVES[kind](), WANTED)


def test_objects_in_an_archive() -> None:
    """A pickle is never loaded."""
    out = io.BytesIO()
    np.savez(out, a=np.array([{}], object), b=np.zeros(1))
    with pytest.raises(CorruptArtefact, match="an array file has"):
        read_npz(out, WANTED)


@pytest.mark.parametrize(
    ("values", "unknown", "holds"),
    [
        ([], False, True),
        ([1, -10], False, True),
        ([1, 11], False, False),
        ([1, -11], False, False),
        ([1, np.nan], False, False),
        ([1, np.nan], True, True),
        ([np.nan, np.nan], True, True),
        ([np.nan, np.inf], True, False),
        ([-np.inf], False, False),
    ],
)
def test_finite_within(values: list[float], *, unknown: bool, holds: bool) -> None:
    """Numbers of at most 10; NaN where it may stand for none."""
    assert finite_within(np.array(values, np.float32), 10.0, unknown=unknown) is holds
