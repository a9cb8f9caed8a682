"""Tests that the notebook runs as it stands, from the export to the plots."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.loops import run_in_own_loop

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"

pytestmark = pytest.mark.filterwarnings(
    # Of Jupyter's own libraries.
    "ignore::DeprecationWarning",
    "ignore::RuntimeWarning",
)


def test_the_notebook_runs(tmp_path, monkeypatch) -> None:
    """Every cell without an error; three plots and the tables are there."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    run_in_own_loop(client.async_execute())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in data for data in shown) == 3
    assert sum("text/html" in data for data in shown) >= 5
    assert shown[-1]["text/plain"] == "True"
