"""Starts the studio by command, or says why there is none."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from shortlist.batch.cli import local, main
from shortlist.lambda_handler import server

KEY = "an-admin-key-of-the-tests"


@pytest.fixture
def started(monkeypatch) -> list[tuple[str, tuple]]:
    """The servers that were started, which listen at once and end."""
    calls: list[tuple[str, tuple]] = []
    monkeypatch.setattr(local, "_refuse_taken", lambda *_: None)  # nothing listens
    monkeypatch.setattr(server, "run", lambda *args: calls.append(("run", args)))
    monkeypatch.setattr(server, "serve", lambda *args: calls.append(("serve", args)))
    return calls


@pytest.fixture
def command(monkeypatch) -> Callable[..., Result]:
    """Runs the command line under variables."""
    monkeypatch.delenv("SHORTLIST_ADMIN_KEY", raising=False)

    def run(*arguments: str, **environ: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=environ)

    return run


def test_the_browser_is_opened(command, started) -> None:
    """At the address, once the server listens; --no-open leaves it alone."""
    command("studio")
    command("studio", "--no-open", "--port", "9000")
    (_, first), (_, second) = started
    assert first[:2] == ("127.0.0.1", 8000)
    assert first[3] is webbrowser.open
    assert (second[1], second[3]) == (9000, None)


def test_beyond_this_machine_by_a_key(command, started) -> None:
    """Without an admin key `studio` is refused, and `serve` has the API alone and says so."""
    refused = command("studio", "--host", "192.0.2.1")
    assert (refused.exit_code, started) == (2, [])
    assert "needs SHORTLIST_ADMIN_KEY" in refused.output
    served = command("serve", "--host", "192.0.2.1")
    assert (served.exit_code, len(started)) == (0, 1)
    assert "no studio at 192.0.2.1" in served.output
    allowed = command("studio", "--host", "192.0.2.1", "--no-open", SHORTLIST_ADMIN_KEY=KEY)
    assert (allowed.exit_code, len(started)) == (0, 2)


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        ("ftp://host", "", "must be http(s)://host"),
        ("host", "", "must be http(s)://host"),
        ("https://", "", "must be http(s)://host"),
        ("https://host/?x=1", "", "must be http(s)://host"),
        ("https://user:secret@host", "", "give no user in the address"),
        ("http://host", "a-key", "would be sent unencrypted"),
    ],
)
def test_wrong_addresses_of_an_api(command, started, url, key, words) -> None:
    """One sentence, and no secret in it."""
    environ = {"STUDIO_API_KEY": key} if key else {}
    refused = command("studio", "--no-open", "--api", url, **environ)
    assert (refused.exit_code, started) == (2, [])
    assert words in refused.output
    assert "secret" not in refused.output


def test_a_deployed_api_is_served(command, started) -> None:
    """By a server of its own, which builds no API here."""
    done = command("studio", "--no-open", "--api", "https://host/prod/", STUDIO_API_KEY="a-key")
    assert done.exit_code == 0, done.output
    [(kind, arguments)] = started
    assert (kind, arguments[1:]) == ("serve", ("127.0.0.1", 8000, None))
