"""Writes the reference of commands and of the API.

Commands come from click, routes and shapes from the OpenAPI document: both are what runs, so the
pages cannot disagree with it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import click

from shortlist.recsys import values
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store

Schema = Mapping[str, Any]

REQUIRED = "required"
_REF = "#/components/schemas/"
_NO_WRAP = "\b"
"""click's mark before a paragraph whose lines stay as they are."""


def commands() -> str:
    """Each command, with its options."""
    return "\n\n".join(_command(path, command) for path, command in _leaves(_cli(), ["shortlist"]))


def routes() -> str:
    """Each route of the API with its parameters, and each shape of a body."""
    document = _openapi()
    parts = [
        _operation(method, paths, operation) for method, paths, operation in _operations(document)
    ]
    shapes = document["components"]["schemas"]
    parts += ["## Shapes", *(_shape(name, shapes[name]) for name in sorted(shapes))]
    return "\n\n".join(parts)


def table(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head, *body = [f"| {' | '.join(cells)} |" for cells in [header, *rows]]
    return "\n".join([head, "|" + "---|" * len(header), *body])


def cell(text: str) -> str:
    """Text as a table's cell holds it: on one line."""
    return " ".join(text.replace("|", "\\|").split())


def module(name: str) -> Any:  # noqa: ANN401 - a module
    """A module of the package: by its name, because infra is below some of them."""
    return importlib.import_module(f"shortlist.{name}")


def _cli() -> click.Group:
    main: click.Group = module("batch.cli").main
    return main


def _leaves(group: click.Group, path: list[str]) -> Iterator[tuple[str, click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _leaves(command, [*path, name])
        elif not command.hidden:
            yield " ".join([*path, name]), command


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"## {path}", _prose(command.help or ""), f"`{path} {usage}`"]
    options = (param for param in command.params if isinstance(param, click.Option))
    rows = [_option(option, context) for option in options if not option.hidden]
    if rows:
        parts.append(table(["option", "takes", "default", "meaning"], rows))
    if command.epilog:
        parts.append(_prose(command.epilog))
    return "\n\n".join(parts)


def _option(option: click.Option, context: click.Context) -> list[str]:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag else option.make_metavar(context)
    default = REQUIRED if option.required else _default(option.get_default(context))
    return [names, cell(takes), default, cell(option.help or "")]


def _default(value: object) -> str:
    """A default as the command line would take it; of a flag, and of none, nothing."""
    plain = value.value if isinstance(value, Enum) else value
    shown = isinstance(plain, str | int | float | PurePath) and not isinstance(plain, bool)
    return f"`{plain}`" if shown else ""


def _prose(text: str) -> str:
    """Help as Markdown: paragraphs, and those that click must not wrap as they are."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    if text.startswith(_NO_WRAP):
        return f"```text\n{inspect.cleandoc(text.removeprefix(_NO_WRAP))}\n```"
    return " ".join(text.split())


def _openapi() -> dict[str, Any]:
    """The document of an app that serves nothing; no connection is made."""
    unasked = Settings.from_env({})
    live = module("lambda_handler.live").LivePath(unasked)
    app = module("lambda_handler.app").create_app(
        unasked, open_store(unasked.redis_url, "document", 1), live
    )
    document: dict[str, Any] = app.openapi()
    return document


def _operations(document: Schema) -> list[tuple[str, list[str], Schema]]:
    """Method, paths and operation; a route that is also there without /v1 once."""
    found: dict[tuple[str, str], tuple[str, list[str], Schema]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            key = (method, path.removeprefix("/v1"))
            found.setdefault(key, (method.upper(), [], operation))[1].append(path)
    return list(found.values())


def _operation(method: str, paths: list[str], operation: Schema) -> str:
    path, *others = sorted(paths, key=len, reverse=True)
    scope = module("lambda_handler.access").scope_of(path)
    also = f" Also at `{others[0]}`." if others else ""
    needs = f"Scope: `{scope}`." if scope else "Open to everybody."
    text = " ".join(operation.get("description", "").split())
    parts = [f"### {method} {path}", f"{text} {needs}{also}"]
    if operation.get("parameters"):
        rows = [
            [
                f"`{one['name']}`",
                one["in"],
                *_type_and_default(one["schema"], required=one.get("required", False)),
                cell(one.get("description", "")),
            ]
            for one in operation["parameters"]
        ]
        parts.append(table(["parameter", "in", "type", "default", "meaning"], rows))
    if "requestBody" in operation:
        parts.append(f"Body: {_type(_content(operation['requestBody']))}.")
    parts.append(_answers(operation["responses"]))
    return "\n\n".join(parts)


def _answers(responses: Schema) -> str:
    """The statuses, by the shape of what comes with them."""
    by_type: dict[str, list[str]] = {}
    for status, answer in sorted(responses.items()):
        schema = _content(answer)
        by_type.setdefault(f" ({_type(schema)})" if schema else "", []).append(status)
    return f"Answers: {'; '.join(', '.join(each) + kind for kind, each in by_type.items())}."


def _content(described: Schema) -> Schema:
    kinds = described.get("content", {}).values()
    return next((kind.get("schema", {}) for kind in kinds), {})


def _shape(name: str, schema: Schema) -> str:
    needed = set(schema.get("required", ()))
    rows = [
        [
            f"`{field}`",
            *_type_and_default(one, required=field in needed),
            cell(one.get("description", "")),
        ]
        for field, one in schema.get("properties", {}).items()
    ]
    text = " ".join(schema.get("description", "").split())
    parts = [f"### {name}", text, table(["field", "type", "default", "meaning"], rows)]
    return "\n\n".join(part for part in parts if part)


def _type_and_default(schema: Schema, *, required: bool) -> tuple[str, str]:
    value = schema.get("default")
    default = REQUIRED if required else f"`{value}`".lower() if value is not None else ""
    return _type(schema), default


def _type(schema: Schema) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _choice(options)
    if schema.get("pattern") == values.ID_PATTERN:
        return "id"
    return _simple(schema)


def _simple(schema: Schema) -> str:
    kind = schema.get("type", "any")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return _bounded(" or ".join(kind) if isinstance(kind, list) else kind, schema)


def _choice(options: list[Schema]) -> str:
    """The kinds in their order, each once; an id may be spelt as a whole number."""
    kinds = dict.fromkeys(_type(option) for option in options)
    if "id" in kinds:
        kinds.pop("integer", None)
    return " or ".join(kinds)


def _bounded(kind: str, schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None or high is None or abs(high) >= 1e12:  # noqa: PLR2004 - a float's own bounds
        return kind
    return f"{kind}, {low:g} to {high:.12g}"
