"""Commands that run the service on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from types import FrameType
from typing import Any

import click

from shortlist.batch.cli.argument_types import MAX_PORT, PORT, OutputFolder, Whole
from shortlist.batch.cli.data import fetch_data
from shortlist.batch.cli.options import data_set_option, demo_directory_option, example
from shortlist.batch.exit_status import FAILED, INVALID
from shortlist.recsys.settings import Settings

NEEDS_KEY = (
    "it shows users' histories, so beyond this machine it needs SHORTLIST_ADMIN_KEY: set it, or "
    "leave --host out"
)
"""Why there is no studio, and what to do."""

WARNING_SECONDS = 2.0
"""How long a server waits for what it should warn of before it starts."""


@click.command(epilog=example("shortlist serve", "shortlist serve --host 0.0.0.0 --port 8080"))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=PORT, default=8000, show_default=True, help="0 takes a free one.")
def serve(host: str, port: int) -> None:
    """Serves the API, with the studio at /.

    The API's documentation is at /docs.
    """
    settings = Settings.from_env(os.environ)
    _refuse_taken(host, port)

    from shortlist.batch.studio.serving import beside, is_offered

    if not is_offered(settings, host):
        click.echo(f"shortlist: no studio at {host}: {NEEDS_KEY}", err=True)
    _warn(settings)
    # By its name: an import contract keeps the batch and the API apart.
    server = import_module("shortlist.lambda_handler.server")
    server.run(host, port, beside(settings, host))


@click.command(epilog=example("shortlist studio", "shortlist studio --api https://api.example.com"))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=PORT, default=8000, show_default=True, help="0 takes a free one.")
@click.option("--open/--no-open", "opens", default=True, help="Open the page in the browser.")
@click.option("--api", metavar="URL", help="Show a deployed API; STUDIO_API_KEY is sent to it.")
def studio(host: str, port: int, opens: bool, api: str | None) -> None:  # noqa: FBT001 - click's own
    """Shows why lists are as they are, in a page.

    It has users, items, data, quality and operations.
    """
    import webbrowser

    from shortlist.batch.studio.forward import base_of, forwarder

    settings = Settings.from_env(os.environ)
    _refuse_taken(host, port)
    forward = None if api is None else forwarder(api, os.environ.get("STUDIO_API_KEY"))

    # After the arguments are checked: it imports the models.
    from shortlist.batch.studio.serving import beside, is_offered

    if not is_offered(settings, host):
        raise click.UsageError(f"no studio at {host}: {NEEDS_KEY}")
    listens = webbrowser.open if opens else None
    server = import_module("shortlist.lambda_handler.server")
    if api is None or forward is None:
        _warn(settings)
        server.run(host, port, beside(settings, host, warm=True), listens)
        return
    made = beside(settings, host, base_of(api), warm=True)
    server.serve(made(forward), host, port, listens)


def _refuse_taken(host: str, port: int) -> None:
    """Refuses an address that cannot be used, before a server is imported."""
    # By its name: an import contract keeps the batch and the API apart.
    import_module("shortlist.lambda_handler.listening").listening(host, port).close()


def _warn(settings: Settings) -> None:
    """Says what answers lack, and why; a server starts all the same.

    It does not wait for a storage that is silent: what is found then is said when it is.
    """
    from shortlist.batch.cli.doctor import show
    from shortlist.batch.doctor import OK, of_service

    def warned() -> None:
        show([finding for finding in of_service(settings) if finding.state != OK], stderr=True)

    thread = Thread(target=warned, daemon=True)
    thread.start()
    thread.join(WARNING_SECONDS)


@click.command(
    epilog=example(
        "shortlist invoke --user 42",
        "shortlist invoke --user somebody-new --history 50,172,181 --k 5",
    )
)
@click.option("--user", required=True, help="The user's id.")
@click.option("--k", type=Whole(1, 100), default=20, show_default=True, help="Items to give.")
@click.option("--history", help="Item ids, oldest first, with commas between: makes it a session.")
@click.option("--no-cache", is_flag=True, help="Compute live.")
@click.option("--verbose", is_flag=True, help="Write the function's log to standard error.")
def invoke(
    user: str,
    k: int,
    history: str | None,
    no_cache: bool,  # noqa: FBT001 - click's own
    verbose: bool,  # noqa: FBT001 - likewise
) -> None:
    """Asks the Lambda handler under the real runtime client.

    It prints the answer, or the API's error, and nothing else.
    """
    from shortlist.batch.installation import HANDLER, IMPORT_ROOT, lambda_environ
    from shortlist.infra.local.runtime_api import LambdaService, http_event

    body: dict[str, Any] = {"user_id": user, "k": k, "use_cache": not no_cache}
    if history is not None:
        body["history"] = [part.strip() for part in history.split(",") if part.strip()]
    settings = Settings.from_env(os.environ)  # a bad one is reported here, by no dying process
    with TemporaryFile() as log:
        environ = lambda_environ(os.environ, settings)
        with LambdaService(HANDLER, str(IMPORT_ROOT), environ, log=log.fileno()) as service:
            invoked = service.invoke(http_event("POST", "/recommend", body))
        log.seek(0)
        said = log.read().decode(errors="replace")
    if verbose or invoked.error is not None:
        click.echo(said, err=True, nl=False)
    for reason in _reasons(said):
        click.echo(f"shortlist: the answer is degraded: {reason}", err=True)
    status, answer = HTTPStatus.INTERNAL_SERVER_ERROR.value, invoked.payload
    if invoked.error is None:
        status, answer = answer["statusCode"], json.loads(answer["body"])
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _warn(settings)
    if status != HTTPStatus.OK:
        sys.exit(INVALID if status < HTTPStatus.INTERNAL_SERVER_ERROR else FAILED)


def _reasons(log: str) -> list[str]:
    """Why answers were degraded, by the lines of the function's log."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith('{"level"'))
    return [line["why"] for line in lines if line.get("degraded") and "why" in line]


@click.command(epilog=example("shortlist demo", "shortlist demo --data shop"))
@data_set_option
@demo_directory_option
def demo(data_set: str, directory: Path) -> None:
    """Runs all of it once: fetch, batch, requests.

    Four kinds of request go to the Lambda handler.
    """
    from shortlist.batch.demo import run

    fetch_data(data_set, directory / "data", {})
    run(directory, os.environ)


@click.command(epilog=example("shortlist local", "shortlist local --data shop --port 3001"))
@data_set_option
@demo_directory_option
@click.option(
    "--package",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A built package, not the source.",
)
@click.option("--port", type=PORT, default=3000, show_default=True, help="0 takes a free one.")
def local(data_set: str, directory: Path, package: Path | None, port: int) -> None:
    """Serves the demo's release as it is deployed.

    HTTP events go to the handler under the real Lambda client.
    """
    import threading

    from shortlist.batch.local import run

    _refuse_taken("127.0.0.1", port)
    _end_by_signals()
    fetch_data(data_set, directory / "data", {})

    def wait(address: str) -> None:
        click.echo(f"serving at {address}: try {address}/docs; stop with Ctrl-C")
        with suppress(Terminated):
            threading.Event().wait()

    run(directory, package, port, os.environ, wait)


@click.command(epilog=example("shortlist redis &", "shortlist redis --directory .demo/valkey"))
@click.option(
    "--port", type=Whole(1, MAX_PORT), default=6379, show_default=True, help="On loopback."
)
@click.option(
    "--directory",
    type=OutputFolder(),
    default=Path(".shortlist/valkey"),
    show_default=True,
    help="Where its data stay.",
)
def redis(port: int, directory: Path) -> None:
    """Runs an embedded Valkey until it is interrupted.

    It is for a laptop without Redis, and listens on loopback alone.
    """
    _refuse_taken("127.0.0.1", port)

    from shortlist.infra.local.valkey import serve_forever

    _end_by_signals()

    def started() -> None:
        click.echo(f"redis://localhost:{port} (data in {directory}); stop with Ctrl-C")

    with suppress(Terminated):
        serve_forever(port, directory, started)


class Terminated(KeyboardInterrupt):
    """SIGTERM: a server that is told to stop has done its work."""


def _stop_once(number: int, _frame: FrameType | None) -> None:
    """Handles the first signal, and has further ones ignored while the command cleans up.

    Raises:
        Terminated, KeyboardInterrupt: by the signal.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _end_by_signals() -> None:
    """Lets SIGTERM end the command in order, as Ctrl-C does.

    Servers that the command started then end with it.
    """
    # SIGINT too: a shell starts background commands with SIGINT ignored.
    signal.signal(signal.SIGINT, _stop_once)
    signal.signal(signal.SIGTERM, _stop_once)
