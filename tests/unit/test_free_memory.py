"""Tests how much memory a process may take, by the files of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from shortlist.batch.free_memory import free_memory

MEMINFO = "MemTotal:       8000 kB\nMemAvailable:   4000 kB\nHugePages_Total:       0\n"
V2 = "memory.max", "memory.current", "memory.stat"
V1 = tuple(f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat"))


def machine(root: Path, files: dict[str, str]) -> Path:
    """A root directory with these files of control groups."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in ({"proc/meminfo": MEMINFO} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("names", "field"), [(V2, "inactive_file"), (V1, "total_inactive_file")])
def test_cache_of_a_container_is_free(tmp_path: Path, names: tuple[str, ...], field: str) -> None:
    """What it has read of files counts as used, until something else needs the memory."""
    texts = "2000000\n", "1900000\n", f"anon 1000\n{field} 1500000\n"
    assert free_memory(machine(tmp_path, dict(zip(names, texts, strict=True)))) == 1_600_000


def test_no_limit_leaves_the_machines(tmp_path: Path) -> None:
    """Nor does one that is larger than what is free."""
    assert free_memory(machine(tmp_path, {"memory.max": "max\n"})) == 4000 << 10
    large = dict(zip(V1, ("9" * 18, "1000", "total_inactive_file 5"), strict=True))
    assert free_memory(machine(tmp_path, large)) == 4000 << 10


def test_other_systems_do_not_tell(tmp_path: Path) -> None:
    """Neither macOS nor Windows has the file."""
    assert free_memory(tmp_path) is None
