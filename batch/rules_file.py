"""Reads a file of business rules, local or on S3."""

from __future__ import annotations

from typing import Any

from shortlist.recsys.data.staging import read_text
from shortlist.recsys.store.rules_reading import rules_in


def read_rules(source: str | None) -> dict[str, Any] | None:
    """The rules of a TOML file, as JSON has them; None for no file.

    Raises:
        InvalidData: there is no such file.
        InvalidInput: it is no TOML, or breaks a rule.
        ArtefactsUnavailable: S3 did not answer.
    """
    return None if source is None else rules_in(read_text(source, "rules"), source)
