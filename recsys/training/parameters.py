"""Bounds that the training parameters share, checked by pydantic.

A parameter states its type, its bounds and its meaning where it is defined. `batch/config.py` reads
the bounds from there, so a new parameter needs no other entry.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, from 0 to 1."""

# Strict, or "3" and True would pass for 3 and 1; forbidding, or a misspelt name would do nothing.
CHECKED = ConfigDict(strict=True, extra="forbid")
