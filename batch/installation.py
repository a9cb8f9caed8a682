"""Locates this installation, and sets up its processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shortlist.recsys.settings import Settings
from shortlist.recsys.store import s3

IMPORT_ROOT = Path(__file__).parents[2]
"""The directory from which `shortlist` is imported: of the sources, or site-packages."""

HANDLER = "shortlist.lambda_handler.handler.handler"
"""What Lambda calls; by its name, as the batch does not import the API."""


def lambda_environ(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment of a Lambda under these settings.

    It runs in another folder, so relative paths are made absolute.
    """
    changed = {
        "REDIS_URL": settings.redis_url,
        "SHORTLIST_ARTEFACTS": settings.artefacts,
        "SHORTLIST_NAMESPACE": settings.namespace,
        "SHORTLIST_BUNDLE_DIR": str(settings.bundle_dir.absolute()),
    }
    if not settings.artefacts.startswith(s3.SCHEME):
        changed["SHORTLIST_ARTEFACTS"] = str(Path(settings.artefacts).absolute())
    keys = environ.get("SHORTLIST_API_KEYS", "")
    if settings.api_keys and ":" not in keys:  # the path of a file
        changed["SHORTLIST_API_KEYS"] = str(Path(keys.strip()).absolute())
    return {**environ, **changed}
