"""The version of this installation, from the package's metadata.

pyproject.toml states it once. A copy of the code without metadata, as in a Lambda package that was
made by copying folders, has no version of its own: it says UNKNOWN, and the release that it serves
names the version that built it (`code_version` in its manifest). A package that holds
`shortlist_recommender-VERSION.dist-info/METADATA` next to `shortlist/` says its version.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "shortlist-recommender"

UNKNOWN = "0+unknown"
"""A valid version by PEP 440, below every release."""


def installed_version() -> str:
    """The version as pip installed it; UNKNOWN where there is no metadata."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return UNKNOWN
