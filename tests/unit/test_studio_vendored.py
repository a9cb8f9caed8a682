"""Tests that the vendored libraries are those that their tables name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from shortlist.batch import studio

FOLDER = Path(studio.__file__).parent
ROW = re.compile(
    r"^\| `(?P<file>\S+\.(?:js|css))` .*`(?P<licence>\S+\.txt)` \| `(?P<sha256>\w{64})` \|$",
    re.MULTILINE,
)


@pytest.mark.parametrize("vendor", [FOLDER / "static/vendor", FOLDER / "api_docs/vendor"])
def test_vendored_files_are_as_stated(vendor) -> None:
    """Each script and style has its digest and a licence in the table, and no other is there."""
    rows = ROW.findall((vendor / "VENDORED.md").read_text())
    digests = {file: digest for file, _, digest in rows}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.iterdir()
        if path.suffix in (".js", ".css")
    }
    assert found == digests
    assert all("Copyright" in (vendor / licence).read_text() for _, licence, _ in rows)
