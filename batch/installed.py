"""Locates this installation: version, import root, handler."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

VERSION = version("shortlist-recommender")

IMPORT_ROOT = Path(__file__).parents[2]
"""The directory from which `shortlist` is imported: of the sources, or site-packages."""

HANDLER = "shortlist.lambda_handler.handler.handler"
"""What Lambda calls; by its name, as the batch does not import the API."""
