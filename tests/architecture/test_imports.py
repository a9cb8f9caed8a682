"""Tests the imports of each path and the package contracts.

Each path runs in a process of its own, which shows what it imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
HIT_MAY_NOT = {"numpy", "torch", "faiss", "lightgbm", "duckdb", "polars", "pandas", "scipy"}
LIVE_MAY_NOT = {
    "torch",
    "polars",
    "duckdb",
    "pandas",
    "sklearn",
    "scipy",
    "lightgbm",
    "click",
    "rich",
}
SERVE = """
import json, sys
from shortlist.infra.local.runtime_api import http_event
from shortlist.lambda_handler.handler import handler

class Context:
    aws_request_id = "test"

body = json.loads(sys.argv[1])
answer = json.loads(handler(http_event("POST", "/recommend", body), Context())["body"])
print(json.dumps([answer["source"], sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def served(published, body: dict) -> tuple[str, set[str]]:
    """The source of the answer, and every top-level module that was imported for it."""
    command = [sys.executable, "-c", SERVE, json.dumps(body)]
    environ = os.environ | published.environ
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    source, modules = json.loads(
        done.stdout.splitlines()[-1]
    )  # the line of the request comes first
    return source, set(modules)


def test_hit_path_imports_nothing_heavy(published) -> None:
    """Serving a cached list needs the standard library, redis, msgpack and fastapi."""
    user = published.dataset.user_ids[int(published.dataset.events.user[0])]
    source, modules = served(published, {"user_id": user})
    assert source == "batch"
    assert modules & HIT_MAY_NOT == set()


def test_live_path_imports_no_training(published) -> None:
    """The two stages run without torch, scipy and the lightgbm package."""
    source, modules = served(
        published, {"user_id": "fresh", "history": [published.dataset.catalogue.ids[0]]}
    )
    assert source == "session"
    assert {"numpy", "faiss"} <= modules
    assert modules & LIVE_MAY_NOT == set()


def test_the_import_contracts_hold(monkeypatch) -> None:
    """Packages import only what is below them; batch and Lambda do not know each other."""
    monkeypatch.chdir(ROOT)
    assert lint_imports() == 0


def test_the_library_package_is_a_docstring() -> None:
    """Importing recsys costs nothing."""
    assert (ROOT / "recsys" / "__init__.py").read_text().count("import") == 0
