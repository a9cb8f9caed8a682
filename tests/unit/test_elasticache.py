"""Tests IAM sign-in to ElastiCache: the token and its errors.

The tests need no account.
"""

from __future__ import annotations

import socketserver
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import CredentialRetrievalError

from shortlist.recsys.errors import InvalidSettings, StoreUnavailable
from shortlist.recsys.store import redis
from shortlist.recsys.store.elasticache import IamCredentials
from shortlist.recsys.store.redis_connections import TlsConnection

URL = "rediss://shortlist-dev-api@cache.example:6379?cluster=true&iam=shortlist-dev"


@pytest.fixture
def role(monkeypatch, tmp_path) -> None:
    """The credentials of a role, as Lambda gives them."""
    given = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "session",
    }
    for name, value in (given | {"AWS_DEFAULT_REGION": "eu-central-1"}).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.mark.usefixtures("role")
def test_token_is_a_signed_request() -> None:
    """It names user, cache, kind and region, lives a quarter of an hour, and has no scheme."""
    user, token = IamCredentials("shortlist-dev-api", "shortlist-dev").get_credentials()
    parts = urlsplit(f"https://{token}")
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert (user, parts.netloc, parts.path) == ("shortlist-dev-api", "shortlist-dev", "/")
    assert (query["Action"], query["User"], query["ResourceType"]) == (
        "connect",
        user,
        "ServerlessCache",
    )
    assert query["X-Amz-Credential"].split("/")[0::2] == [
        "AKIDEXAMPLE",
        "eu-central-1",
        "aws4_request",
    ]
    assert (
        query["X-Amz-Expires"],
        query["X-Amz-Security-Token"],
        len(query["X-Amz-Signature"]),
    ) == ("900", "session", 64)


@pytest.mark.usefixtures("role")
def test_next_connection_has_new_credentials(monkeypatch) -> None:
    """A resumed snapshot, or a role whose credentials rotate, signs with what is valid now."""
    provider = IamCredentials("u", "c")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEWER")
    assert "AKIDNEWER" in provider.get_credentials()[1]


@pytest.mark.usefixtures("role")
def test_missing_region_is_unavailable(monkeypatch) -> None:
    """And says what to give."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(
        StoreUnavailable, match="there is no AWS region: give AWS_DEFAULT_REGION and a role"
    ):
        IamCredentials("u", "c").get_credentials()


@pytest.mark.usefixtures("role")
def test_role_without_credentials(monkeypatch) -> None:
    """An error of botocore becomes StoreUnavailable, on which the API falls back."""
    provider = IamCredentials("u", "c")

    def refuse() -> None:
        raise CredentialRetrievalError(provider="container-role", error_msg="refused")

    monkeypatch.setattr(provider._session, "get_credentials", refuse)
    with pytest.raises(StoreUnavailable, match="see its role"):
        provider.get_credentials()


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("query", ["iam=shortlist-dev", "cluster=true&iam=shortlist-dev"])
def test_each_connection_has_a_token(monkeypatch, query) -> None:
    """A token in place of the URL's missing password, on one node and on a cluster."""
    signed: list[tuple[str, str]] = []
    honest = IamCredentials.get_credentials

    def noting(self: IamCredentials) -> tuple[str, str]:
        signed.append(honest(self))
        return signed[-1]

    monkeypatch.setattr(IamCredentials, "get_credentials", noting)
    monkeypatch.setattr(
        TlsConnection, "_wrap_socket_with_ssl", lambda _self, plain: plain
    )  # no server here speaks it
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        opened = redis.open_store(
            f"rediss://app@127.0.0.1:{server.server_address[1]}?{query}", "n", 2000
        )
        with pytest.raises(StoreUnavailable, match=r"WRONGPASS|cannot be connected"):
            opened.ping()
        opened.close()
        server.shutdown()
        thread.join()
    assert {user for user, _ in signed} == {"app"}
    assert all(token.startswith("shortlist-dev/?Action=connect&User=app&") for _, token in signed)


class Refusing(socketserver.StreamRequestHandler):
    """Lets nobody in."""

    def handle(self) -> None:
        """Whatever is said."""
        if self.request.recv(65_536):
            self.wfile.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")


@pytest.mark.parametrize(
    "url", ["redis://u@h:1?iam=c", "rediss://h:1?iam=c", "rediss://u:p@h:1?iam=c"]
)
def test_sign_in_needs_tls_and_user(url) -> None:
    """The token would travel in the clear, or nobody could be signed in."""
    with pytest.raises(InvalidSettings, match="rediss://USER@HOST"):
        redis.open_store(url, "n", 50)
