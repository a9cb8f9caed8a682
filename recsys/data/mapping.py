"""Reads and writes mapping files.

A mapping file is TOML. It says where the tables are, which of their columns is what, how their
texts and times are written, and what their events mean. `shortlist data check` writes one; every
command that reads tables takes it by `--data`. Paths in it are relative to the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.data.sources import (
    STRICT,
    InteractionsSource,
    ItemsSource,
    TableSource,
    UsersSource,
)
from shortlist.recsys.data.staging import read_text
from shortlist.recsys.errors import InvalidData, InvalidInput
from shortlist.recsys.event_rules import EventRules

_S3 = "s3://"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_REMEDY = "correct the file, or write a new one with `shortlist data check`"


@dataclass(frozen=True, config=STRICT)
class DataMapping:
    """All that a mapping file says."""

    interactions: InteractionsSource
    items: ItemsSource | None = None
    users: UsersSource | None = None
    events: EventRules = field(default_factory=EventRules)


def read_mapping(source: str) -> DataMapping:
    """Reads a mapping file from a path or an s3:// address; its paths then start where it lies.

    Raises:
        InvalidData: there is no such file, it is no TOML, or it has a section, a name or a value
            that breaks a rule.
        ArtefactsUnavailable: S3 did not answer.
    """
    try:
        sections = tomllib.loads(read_text(source, "mapping"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidData(f"mapping {source!r} is no TOML ({error}): {_REMEDY}") from error
    try:
        mapping = _ADAPTER.validate_python(sections)
    except ValidationError as error:
        raise InvalidData(f"mapping {source!r}: {_said(error)}; {_REMEDY}") from error
    root = source.rpartition("/")[0] if source.startswith(_S3) else str(Path(source).parent)
    return _with_paths(mapping, lambda path: _below(root, path))


def write_mapping(
    path: Path, mapping: DataMapping, comment: str = "", *, replace: bool = True
) -> None:
    """Writes a mapping file atomically, with its local paths relative to it.

    comment: lines that open the file. replace: whether another content may be overwritten.

    Raises:
        InvalidInput: the file cannot be written, or holds something else and may not be replaced.
    """
    root = path.absolute().parent
    relative = _with_paths(mapping, lambda place: _relative(root, place))
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for name, section in _plain(relative).items():
        lines += ["", f"[{name}]", *_pairs(section)]
    text = "\n".join(lines).lstrip() + "\n"
    try:
        if not replace and path.is_file() and path.read_bytes() != text.encode():
            raise InvalidInput(
                f"{str(path)!r} holds something else than would be written, such as corrections by "
                "hand, and is not overwritten: give another name, or --force"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise InvalidInput(
            f"cannot write the mapping to {str(path)!r} ({error}): give a writable path"
        ) from error


_ADAPTER = TypeAdapter(DataMapping)


def _said(error: ValidationError) -> str:
    """The first fault of a mapping, with its place, value and rule."""
    # A misspelt name first: what it leaves missing is named by it.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] == "missing")
    first = faults[0]
    place = [str(part) for part in first["loc"]]
    where = f"[{place[0]}]" if len(place) == 1 else f"[{place[0]}] {'.'.join(place[1:])}"
    if first["type"] == "unexpected_keyword_argument":
        return f"{where} is not known{_meant(place)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    rule = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    return f"{where} is {_shown(first['input'])}: {rule[:1].lower()}{rule[1:]}"


def _meant(place: list[str]) -> str:
    """The names that a place of a mapping may hold, the likeliest first."""
    known = _names_at(place[:-1])
    near = difflib.get_close_matches(place[-1], known, n=1)
    return f", {near[0]} may be meant" if near else f": known are {', '.join(known)}"


def _names_at(place: list[str]) -> list[str]:
    schema: dict[str, Any] = _ADAPTER.json_schema()
    definitions = schema["$defs"]
    for name in place:
        part = schema["properties"][name]
        references = [p["$ref"] for p in (part, *part.get("anyOf", ())) if "$ref" in p]
        schema = definitions[references[0].rpartition("/")[2]]
    return list(schema["properties"])


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


_MAX_SHOWN = 80


def _with_paths(mapping: DataMapping, change: Callable[[str], str]) -> DataMapping:
    """The mapping with every path changed."""

    def changed(table: Any) -> Any:  # noqa: ANN401 - each table keeps its type
        if not isinstance(table, TableSource):
            return table
        return dataclasses.replace(table, paths=tuple(map(change, table.paths)))

    tables = ("interactions", "items", "users")
    return dataclasses.replace(mapping, **{t: changed(getattr(mapping, t)) for t in tables})


def _below(root: str, path: str) -> str:
    """A path of a mapping file as seen from here."""
    if path.startswith((_S3, "/", "~")) or root == ".":
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return f"{root}/{path}" if root.startswith(_S3) else str(Path(root) / path)


def _relative(root: Path, path: str) -> str:
    if path.startswith(_S3):
        return path
    return Path(os.path.relpath(path, root)).as_posix()


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of a mapping
    """A mapping as what TOML holds: what has its default value is left out."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    if not dataclasses.is_dataclass(value):
        return value
    given = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    defaults = {f.name: _default(f) for f in dataclasses.fields(value)}
    return {name: _plain(v) for name, v in given.items() if v != defaults[name]}


def _default(field: dataclasses.Field[Any]) -> object:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _pairs(section: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a section."""
    for name, value in section.items():
        yield f"{_key(name)} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_toml(v)}" for name, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # TOML's basic strings are JSON's, but for the character DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml(name)
