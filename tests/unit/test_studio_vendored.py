"""Tests that the studio's vendored libraries are those that their table names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from shortlist.batch import studio

VENDOR = Path(studio.__file__).parent / "static" / "vendor"
ROW = re.compile(
    r"^\| `(?P<file>\S+\.js)` .*`(?P<licence>\S+\.txt)` \| `(?P<sha256>\w{64})` \|$", re.MULTILINE
)


def test_vendored_files_are_as_stated() -> None:
    """Each script has the table's digest and a licence beside it, and none is missing there."""
    rows = ROW.findall((VENDOR / "VENDORED.md").read_text())
    digests = {file: digest for file, _, digest in rows}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")
    }
    assert found == digests
    assert all("Copyright" in (VENDOR / licence).read_text() for _, licence, _ in rows)
