"""Tells what lists without repeats cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shortlist.recsys.models.interactions import Repeats

FEW_REPEATS = 0.03
"""Share of the held-out items, above which a run that never offers them again says so."""


def repeats_note(counted: Mapping[str, Any]) -> str | None:
    """What a run that never offers anything again should tell.

    counted: from `batch.offline_evaluation.count_repeats`.
    """
    if counted["mode"] != Repeats.NEVER.value or counted["held_out"] <= FEW_REPEATS:
        return None
    return (
        f"{counted['held_out']:.1%} of the held-out items are ones that their user had before, and "
        "no list can have them, as what a user had is never offered again; set "
        "SHORTLIST_REPEATS=allow to offer it when it is due"
    )
