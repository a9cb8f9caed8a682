"""Locates this installation: import root and handler."""

from __future__ import annotations

from pathlib import Path

IMPORT_ROOT = Path(__file__).parents[2]
"""The directory from which `shortlist` is imported: of the sources, or site-packages."""

HANDLER = "shortlist.lambda_handler.handler.handler"
"""What Lambda calls; by its name, as the batch does not import the API."""
