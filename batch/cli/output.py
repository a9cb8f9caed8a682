"""Gives a command's figures as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from shortlist.batch.cli.argument_types import STDOUT
from shortlist.recsys.atomic_file import write_atomically


def give_json(figures: object, json_file: Path | None) -> bool:
    """Prints or writes figures where `--json` asks for them; tells whether tables are wanted.

    A number that is not finite becomes null.
    """
    if json_file is None:
        return True
    text = json.dumps(_plain(figures), indent=2, ensure_ascii=False, allow_nan=False)
    if json_file == STDOUT:
        click.echo(text)
        return False
    write_atomically(json_file, f"{text}\n")
    return True


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if hasattr(value, "tolist"):  # numpy's, which is not imported for it
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
