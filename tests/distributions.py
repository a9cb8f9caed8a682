"""Shows a process only some of the installed distributions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Container, Iterable
from pathlib import Path

from packaging.requirements import Requirement

from shortlist.infra.tools.lock import normal


def link_distributions(directory: Path, names: Iterable[str]) -> Path:
    """Makes `directory`, with links to the files of the named distributions alone."""
    directory.mkdir()
    for name in names:
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            link = directory / top
            if top == ".." or link.exists():  # a script next to site-packages, or linked already
                continue
            located = Path(str(file.locate()))
            link.symlink_to(
                located.parents[len(file.parts) - 2] if len(file.parts) > 1 else located
            )
    return directory


def closure(requirements: Iterable[str], bare: Container[str] = ()) -> set[str]:
    """The names of all that the requirements bring here; bare: without their own."""
    names: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = normal(requirement.name)
        unwanted = requirement.marker and not requirement.marker.evaluate({"extra": ""})
        if name in names or unwanted:
            continue
        names.add(name)
        if name not in bare:
            waiting += [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    return names
