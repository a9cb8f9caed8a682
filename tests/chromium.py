"""Finds the browser of the tests: Chromium, or Chrome."""

from __future__ import annotations

import shutil

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first is without what only a window needs, and takes half of the time for a page."""


def chromium() -> str | None:
    """The path of the first that the machine has."""
    return next(filter(None, map(shutil.which, NAMES)), None)
