"""Makes small wheels, as an index would offer them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path


def fake_wheel(directory: Path, name: str, files: Mapping[str, str]) -> Path:
    """A wheel of version 1.0 of `name` that holds `files`, by their paths in site-packages."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": tags}
    record = [_record_row(path, text) for path, text in files.items()]
    record.append(f"{info}/RECORD,,")
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return path


def _record_row(path: str, text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"{path},sha256={digest.rstrip(b'=').decode()},{len(text)}"
