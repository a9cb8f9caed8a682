"""Names the job's stages, and stamps the finished ones.

A stage's stamp holds the key of what the stage was made from. While the key stays the same, the
stage need not run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import InvalidInput

NAMES = (
    "features",
    "train-embeddings",
    "build-index",
    "train-ranker",
    "evaluate",
    "precompute",
    "publish",
)
"""In the order in which they run."""

PRECOMPUTE, PUBLISH = NAMES[-2:]

ASSEMBLE = "assemble"
"""The part of `precompute` that makes the bundle; it has a stamp of its own."""

PAGE = "report.html"
"""The run's report as a page, in the work directory and in the bundle."""

STAMPS = "done"
"""The directory of stamps, in the work directory."""


def stamp(work: Path, name: str, key: str) -> None:
    """Notes that a stage finished."""
    write_atomically(_stamp_file(work, name), key)


def stamped_key(work: Path, name: str) -> str | None:
    """The key of a finished stage, or None."""
    file = _stamp_file(work, name)
    return file.read_text(encoding="utf-8") if file.exists() else None


def remove_stamp(work: Path, name: str) -> None:
    """Notes that a stage has to run again."""
    _stamp_file(work, name).unlink(missing_ok=True)


def never_run(work: Path, name: str) -> list[str]:
    """The stages before `name` that have never finished here."""
    return [each for each in NAMES[: NAMES.index(name)] if stamped_key(work, each) is None]


def refuse_missing(name: str, missing: Sequence[str]) -> None:
    """Refuses a stage while earlier ones are missing. Raises InvalidInput."""
    if missing:
        raise InvalidInput(
            f"stage {name} needs {', '.join(missing)} first: "
            "run them, or `shortlist batch run` for all"
        )


def _stamp_file(work: Path, name: str) -> Path:
    return work / STAMPS / name
