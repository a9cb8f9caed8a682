"""Serves the demo's release as it is deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from shortlist.batch.demo import VALKEY, publish
from shortlist.batch.installation import HANDLER, IMPORT_ROOT, lambda_environ
from shortlist.infra.local.front_door import front_door
from shortlist.infra.local.runtime_api import LambdaService
from shortlist.infra.local.valkey import kept
from shortlist.recsys.settings import Settings


def run(
    directory: Path,
    package: Path | None,
    port: int,
    environ: Mapping[str, str],
    until: Callable[[str], object],
) -> None:
    """Publishes the tables in `directory`/data, and serves."""
    with kept(environ, directory / VALKEY) as url:
        serve(publish(directory, environ, url).settings, package, port, environ, until)


def serve(
    settings: Settings,
    package: Path | None,
    port: int,
    environ: Mapping[str, str],
    until: Callable[[str], object],
) -> None:
    """Serves while `until` runs, which takes the address.

    package: a built Lambda package; None for this source tree.
    """
    variables = lambda_environ(environ, settings)
    variables.pop("PYTHONPATH", None)  # else the handler would not be the package's
    root = str((IMPORT_ROOT if package is None else package).resolve())
    with (
        LambdaService(HANDLER, root, variables) as service,
        front_door(service, port) as address,
    ):
        until(address)
