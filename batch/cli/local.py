"""Commands that run the service on this machine."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from shortlist.batch.cli.data import fetch_data
from shortlist.batch.cli.options import PATH, data_set_option, demo_directory_option
from shortlist.batch.exit_status import FAILED
from shortlist.recsys.settings import Settings

NEEDS_KEY = (
    "it shows users' histories, so beyond this machine it needs SHORTLIST_ADMIN_KEY: set it, or "
    "leave --host out"
)
"""Why there is no studio, and what to do."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
def serve(host: str, port: int) -> None:
    """Serves the API under uvicorn, with the studio at / and the documentation at /docs."""
    from shortlist.batch.studio.serving import beside, is_offered

    settings = Settings.from_env(os.environ)
    if not is_offered(settings, host):
        click.echo(f"no studio at {host}: {NEEDS_KEY}", err=True)
    # By its name: an import contract keeps the batch and the API apart.
    server = import_module("shortlist.lambda_handler.server")
    server.run(host, port, beside(settings, host))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
@click.option("--open/--no-open", "opens", default=True, help="Open the page in the browser.")
@click.option("--api", metavar="URL", help="Show a deployed API; STUDIO_API_KEY is sent to it.")
def studio(host: str, port: int, opens: bool, api: str | None) -> None:  # noqa: FBT001 - click's own
    """Shows why lists are as they are, in a page: users, items, data, quality, operations."""
    import webbrowser

    from shortlist.batch.studio.serving import beside, is_offered

    settings = Settings.from_env(os.environ)
    if not is_offered(settings, host):
        raise click.UsageError(f"no studio at {host}: {NEEDS_KEY}")
    listens = webbrowser.open if opens else None
    server = import_module("shortlist.lambda_handler.server")
    if api is None:
        server.run(host, port, beside(settings, host, warm=True), listens)
        return
    from shortlist.batch.studio.forward import base_of, forwarder

    made = beside(settings, host, base_of(api), warm=True)
    server.serve(made(forwarder(api, os.environ.get("STUDIO_API_KEY"))), host, port, listens)


@click.command()
@click.option("--user", required=True, help="The user's id.")
@click.option("--k", default=20, show_default=True)
@click.option("--history", help="Item ids, oldest first, with commas between: makes it a session.")
@click.option("--no-cache", is_flag=True, help="Compute live.")
def invoke(user: str, k: int, history: str | None, no_cache: bool) -> None:  # noqa: FBT001 - click's own
    """Asks the Lambda handler under the real Lambda runtime client, and prints its answer."""
    from shortlist.batch.installation import HANDLER, IMPORT_ROOT
    from shortlist.infra.local.runtime_api import LambdaService, http_event

    body: dict[str, Any] = {"user_id": user, "k": k, "use_cache": not no_cache}
    if history is not None:
        body["history"] = [part.strip() for part in history.split(",") if part.strip()]
    Settings.from_env(os.environ)  # a bad setting is reported here, not by a dying process
    with LambdaService(HANDLER, str(IMPORT_ROOT), os.environ) as service:
        invoked = service.invoke(http_event("POST", "/recommend", body))
    payload = invoked.payload
    answer = json.loads(payload["body"]) if invoked.error is None else payload
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if invoked.error is not None or payload["statusCode"] != HTTPStatus.OK:
        sys.exit(FAILED)


@click.command()
@data_set_option
@demo_directory_option
def demo(data_set: str, directory: Path) -> None:
    """Runs all of it once: fetch, the whole batch, four kinds of request to the Lambda handler."""
    from shortlist.batch.demo import run

    fetch_data(data_set, directory / "data", {})
    run(directory, os.environ)


@click.command()
@data_set_option
@demo_directory_option
@click.option(
    "--package",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A built package, not the source.",
)
@click.option("--port", default=3000, show_default=True)
def local(data_set: str, directory: Path, package: Path | None, port: int) -> None:
    """Serves the API as deployed: HTTP events for the handler under the real Lambda client."""
    import threading

    from shortlist.batch.local import run

    _end_by_signals()
    fetch_data(data_set, directory / "data", {})

    def wait(address: str) -> None:
        click.echo(f"serving at {address}: try {address}/docs; stop with Ctrl-C")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()

    run(directory, package, port, os.environ, wait)


@click.command()
@click.option("--port", default=6379, show_default=True)
@click.option("--directory", type=PATH, default=Path(".shortlist/valkey"), show_default=True)
def redis(port: int, directory: Path) -> None:
    """Runs an embedded Valkey on loopback until interrupted, for a laptop without Redis."""
    from shortlist.infra.local.valkey import serve_forever

    _end_by_signals()
    click.echo(f"redis://localhost:{port} (data in {directory}); stop with Ctrl-C")
    serve_forever(port, directory)


def _end_by_signals() -> None:
    """Lets SIGTERM end the command as Ctrl-C does.

    Servers that the command started then end with it.
    """
    import signal

    # SIGINT too: a shell starts background commands with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
