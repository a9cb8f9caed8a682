"""Tests authorization: user tokens, scopes, API keys and origins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from shortlist.batch import publish
from shortlist.batch.progress import ProgressReporter
from shortlist.lambda_handler.access import OPEN, check_user, scope_of, secure
from shortlist.lambda_handler.app import METHODS, create_app
from shortlist.lambda_handler.entry import Adapter
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.api_keys import parse_api_keys
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.aws_events import Event, function_url, http_api, http_api_1, rest_api

ADMIN = "the-admin-key-of-the-tests"
KEYS = (
    "reader:read:reader-key-0123456,shop:read+events:shop-key-01234567,"
    "eraser:delete:eraser-key-01234"
)
KEYS += ",watcher:operations:watcher-key-0123,boss:admin:boss-key-01234567"
NAMES = [entry.partition(":")[0] for entry in KEYS.split(",")]
EVENT = {"event_id": "e1", "item_id": "1", "timestamp": 1}
ARN = "arn:aws:iam::123456789012:user/server"

Line = tuple[str, str, dict[str, Any] | None]
OWN: dict[str, Callable[[str], Line]] = {
    "recommend": lambda user: ("POST", "/recommend", {"user_id": user, "k": 1}),
    "recommend-v1": lambda user: ("POST", "/v1/recommend", {"user_id": user, "k": 1}),
    "recommendations": lambda user: ("GET", f"/v1/users/{user}/recommendations?k=1", None),
    "by-query": lambda user: ("GET", f"/v1/user/recommendations?user_id={user}&k=1", None),
    "rank": lambda user: ("POST", "/v1/rank", {"user_id": user, "items": ["1", "2"]}),
    "events": lambda user: ("POST", "/v1/events", {"events": [EVENT | {"user_id": user}]}),
    "delete": lambda user: ("DELETE", f"/v1/users/{user}", None),
    "delete-by-body": lambda user: ("POST", "/v1/user/delete", {"user_id": user}),
}
"""Every operation that concerns a user."""

SHARED: dict[str, Line] = {
    "read": ("GET", "/v1/popular?k=1", None),
    "operations": ("GET", "/metrics", None),
    "admin": ("GET", "/v1/releases", None),
}
"""One operation of each scope that concerns no user."""


@pytest.fixture(scope="module")
def world(published) -> Iterator[tuple[Settings, RedisStore]]:
    """A copy of the release that deletions and events may change."""
    settings = replace(published.settings, namespace="access")
    publish.publish(
        published.work / "bundle", published.work / "lists", settings, ProgressReporter()
    )
    store = open_store(settings.redis_url, "access", 2000)
    yield settings, store
    store.close()


@pytest.fixture(scope="module")
def behind_gateway(world) -> Adapter:
    """The API that binds tokens to the user in `sub`."""
    settings = replace(world[0], jwt_user_claim="sub")
    return Adapter(create_app(settings, world[1], LivePath(settings)))


@pytest.fixture
def with_keys(world) -> TestClient:
    """The API with API keys and an admin key, without a limit."""
    return keyed(world, 0.0)


def keyed(world: tuple[Settings, RedisStore], rate: float) -> TestClient:
    """The API with API keys that may make so many requests a second."""
    keys = parse_api_keys(KEYS.split(","))
    settings = replace(world[0], api_keys=keys, api_key_rate=rate, admin_key=ADMIN)
    return TestClient(
        create_app(settings, world[1], LivePath(settings)), raise_server_exceptions=False
    )


def by_token(event: Event, claims: dict[str, Any]) -> Event:
    """The event as a JWT authorizer lets it pass."""
    event["requestContext"]["authorizer"] = {"jwt": {"claims": claims, "scopes": None}}
    return event


def status(adapter: Adapter, event: Event) -> int:
    """Of the answer."""
    return adapter(event, None)["statusCode"]  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", OWN)
def test_token_acts_for_its_user(behind_gateway, operation) -> None:
    """A token acts for its own user; for another it is a 403 without the other's name."""
    mine, other = f"me-{operation}", f"other-{operation}"
    assert status(behind_gateway, by_token(http_api(*OWN[operation](mine)), {"sub": mine})) == 200
    refused = behind_gateway(by_token(http_api(*OWN[operation](other)), {"sub": mine}), None)
    error = json.loads(refused["body"])["error"]
    assert (refused["statusCode"], error["code"]) == (403, "forbidden")
    assert other not in refused["body"]


def test_a_refused_deletion_deletes_nothing(behind_gateway, world) -> None:
    """Whichever form it has."""
    store = world[1]
    store.merge_users([("victim", UserRecord(("1",), (1,), (None,), 1))], 0)
    for operation in ("delete", "delete-by-body"):
        assert (
            status(
                behind_gateway, by_token(http_api(*OWN[operation]("victim")), {"sub": "attacker"})
            )
            == 403
        )
    assert store.user_record("victim") is not None


def test_event_of_another_user(behind_gateway, world) -> None:
    """One event of another user refuses the request, and nothing of it is stored."""
    events = [EVENT | {"user_id": "me-first"}, EVENT | {"user_id": "not-me"}]
    event = by_token(http_api("POST", "/v1/events", {"events": events}), {"sub": "me-first"})
    assert status(behind_gateway, event) == 403
    assert [world[1].user_record(user) for user in ("me-first", "not-me")] == [None, None]


def test_token_reads_public_lists(behind_gateway) -> None:
    """It reads popular items and its own history, but no figures and no admin routes."""
    statuses = {
        scope: status(behind_gateway, by_token(http_api(*line), {"sub": "me"}))
        for scope, line in SHARED.items()
    }
    assert statuses == {"read": 200, "operations": 403, "admin": 403}
    for session in (
        ("POST", "/v1/rank", {"history": ["1"], "items": ["2"]}),
        ("POST", "/recommend", {"history": ["1"], "k": 1}),
        ("POST", "/recommend", {"k": 1}),
    ):
        assert status(behind_gateway, by_token(http_api(*session), {"sub": "me"})) == 200


@pytest.mark.parametrize(
    "claims", [{}, {"sub": ""}, {"sub": True}, {"sub": ["me"]}, {"email": "me"}, {"sub": None}]
)
def test_token_without_the_claim(behind_gateway, claims) -> None:
    """It is a 403 for each operation that concerns a user."""
    event = by_token(http_api(*OWN["recommend"]("me")), claims)
    assert status(behind_gateway, event) == 403


SCOPES = [
    {"scope": "openid shortlist/read"},
    {"scope": "shortlist:read"},
    {"scp": ["shortlist/read"]},
    {"scp": "[shortlist/read shortlist/events]"},
    {"scopes": "shortlist/events,shortlist/read"},
]


@pytest.mark.parametrize("claims", SCOPES)
def test_a_scope_acts_for_every_user(behind_gateway, claims) -> None:
    """A scope, in each spelling of providers and API Gateway, acts for every user."""
    assert status(behind_gateway, by_token(http_api(*OWN["recommend"]("anybody")), claims)) == 200
    assert status(behind_gateway, by_token(http_api(*OWN["delete"]("anybody")), claims)) == 403


@pytest.mark.parametrize(
    "claims",
    [{"scope": "read"}, {"scope": "other/read"}, {"scope": "shortlist/reader"}, {"scope": 7}],
)
def test_foreign_scopes_are_ignored(behind_gateway, claims) -> None:
    """A bare `read`, which many providers give to end users, gives nothing."""
    assert (
        status(
            behind_gateway,
            by_token(http_api(*OWN["recommend"]("anybody")), {"sub": "me", **claims}),
        )
        == 403
    )


def test_each_scope_opens_its_own_operations(behind_gateway) -> None:
    """None holds another, and deletion has its own."""
    lines = SHARED | {"events": OWN["events"]("a-user"), "delete": OWN["delete"]("a-user")}
    for scope in lines:
        claims = {"scope": f"shortlist/{scope}"}
        allowed = {
            of
            for of, line in lines.items()
            if status(behind_gateway, by_token(http_api(*line), claims)) == 200
        }
        assert allowed == {scope}


def authorized(event: Event, **context: Any) -> Event:
    """The event with these parts in its request context."""
    event["requestContext"] |= context
    return event


ME, OTHER = OWN["recommend"]("me"), OWN["recommend"]("other")
POOL = {
    "userArn": "arn:aws:sts::1:assumed-role/pool/CognitoIdentityCredentials",
    "cognitoIdentity": {"identityId": "us:1"},
}


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        (lambda line: authorized(http_api(*line), authorizer={"lambda": {"sub": "me"}}), 403),
        (
            lambda line: authorized(
                http_api_1(*line), authorizer={"claims": {"sub": "me"}, "scopes": None}
            ),
            403,
        ),
        (lambda line: authorized(rest_api(*line), authorizer={"claims": {"sub": "me"}}), 403),
        (
            lambda line: authorized(rest_api(*line), authorizer={"principalId": "x", "sub": "me"}),
            403,
        ),
        (
            lambda line: authorized(
                http_api(*line), authorizer={"iam": {"userArn": ARN, "cognitoIdentity": None}}
            ),
            200,
        ),
        (lambda line: authorized(function_url(*line), authorizer={"iam": {"userArn": ARN}}), 200),
        (lambda line: authorized(rest_api(*line), identity={"userArn": ARN}), 200),
    ],
)
def test_every_authorizer_is_understood(behind_gateway, mine, others) -> None:
    """JWT, Lambda and Cognito authorizers bind to a user; a caller by IAM is a server."""
    assert status(behind_gateway, mine(ME)) == 200
    assert status(behind_gateway, mine(OTHER)) == others
    assert status(behind_gateway, mine(SHARED["admin"])) == 403


@pytest.mark.parametrize(
    "event",
    [
        authorized(http_api(*ME), authorizer={"iam": POOL}),
        authorized(rest_api(*ME), identity={"userArn": ARN, "cognitoIdentityId": "us:1"}),
        authorized(http_api(*ME), authorizer={"lambda": None}),
        authorized(http_api(*ME), authorizer={"jwt": None}),
        authorized(http_api(*ME), authorizer={"jwt": "text"}),
    ],
)
def test_end_user_with_a_signature(behind_gateway, event) -> None:
    """An identity pool's user is bound to a claim; without one they act for nobody."""
    assert status(behind_gateway, event) == 403


@pytest.mark.parametrize(
    "event",
    [
        http_api(*ME),
        authorized(http_api(*ME), authorizer={}),
        authorized(http_api(*ME), authorizer=None),
        authorized(rest_api(*ME), identity={"userArn": None, "cognitoIdentityId": None}),
        function_url(*ME),
    ],
)
def test_headers_prove_nothing(behind_gateway, event) -> None:
    """Claims come from the event's context alone: 401, with a challenge."""
    event["headers"] |= {
        "authorization": "Bearer e30.eyJzdWIiOiJtZSJ9.",
        "x-amzn-oidc-identity": "me",
        "sub": "me",
    }
    event["headers"] |= {
        "x-amzn-request-context": json.dumps({"authorizer": {"jwt": {"claims": {"sub": "me"}}}})
    }
    answer = behind_gateway(event, None)
    assert (answer["statusCode"], "www-authenticate" in answer["headers"]) == (401, True)


def test_without_the_settings_nothing_is_checked(world) -> None:
    """A route's app is its own, and whose request it is costs one look at a variable."""
    settings, store = world
    checked = replace(settings, jwt_user_claim="sub")

    def guarded(how: Settings) -> set[str]:
        routes = create_app(how, store, LivePath(how)).routes
        return {r.path for r in routes if isinstance(r, Route) and "guard" in r.app.__qualname__}

    assert guarded(settings) == set()
    assert {"/v1/recommend", "/v1/user/delete", "/docs"} <= guarded(checked)
    assert guarded(checked).isdisjoint(OPEN)
    check_user("anybody")


def test_mounted_apps_are_refused(world) -> None:
    """A part mounted into the app has no route whose scope could be looked up."""
    settings, store = world
    app = create_app(settings, store, LivePath(settings))
    app.mount("/more", app)
    with pytest.raises(TypeError, match="cannot be guarded: add it as a route with a path"):
        secure(app, replace(settings, jwt_user_claim="sub"))


def test_every_route_has_a_scope(world) -> None:
    """Only admin routes have the default scope, and only health is open."""
    settings, store = world
    paths = {
        route.path
        for route in create_app(settings, store, LivePath(settings)).routes
        if isinstance(route, Route)
    }
    by_default = {path for path in paths if scope_of(path) == "admin"}
    assert all(re.search(r"release|block$|/admin/", path) for path in by_default)
    assert {path for path in paths if scope_of(path) is None} <= OPEN


def test_key_opens_its_scopes(with_keys) -> None:
    """A key opens the routes of its scopes; other callers are unknown, and health is open."""
    lines = SHARED | {"events": OWN["events"]("k-user"), "delete": OWN["delete"]("k-user")}
    secrets = {entry.split(":")[0]: entry.split(":")[2] for entry in KEYS.split(",")}

    def opened(headers: dict[str, str]) -> set[str]:
        answers = {
            of: with_keys.request(*line[:2], json=line[2], headers=headers).status_code
            for of, line in lines.items()
        }
        assert set(answers.values()) <= {200, 401, 403}
        return {of for of, code in answers.items() if code == 200}

    opened_by = {name: opened({"X-Api-Key": secret}) for name, secret in secrets.items()}
    assert opened_by == {
        "reader": {"read"},
        "shop": {"read", "events"},
        "eraser": {"delete"},
        "watcher": {"operations"},
        "boss": {"admin"},
    }
    assert opened({"X-Shortlist-Admin-Key": ADMIN}) == {"admin", "operations"}
    assert opened({"X-Shortlist-Admin-Key": ADMIN, "X-Api-Key": secrets["reader"]}) == {
        "admin",
        "operations",
        "read",
    }
    assert with_keys.get("/health").status_code == 200


@pytest.mark.parametrize(
    "sent", [{}, {"X-Api-Key": ""}, {"X-Api-Key": "reader-key-012345"}, {"X-Api-Key": "reader"}]
)
@pytest.mark.parametrize(
    "path",
    ["/v1/popular", "/metrics", "/model/info", "/docs", "/redoc", "/openapi.json", "/v1/releases"],
)
def test_a_stranger_learns_nothing(with_keys, path, sent) -> None:
    """401 in the envelope for everything but health."""
    response = with_keys.get(path, headers=sent)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")


def test_key_of_any_bytes(with_keys) -> None:
    """A wrong key of any bytes is a 401 and no server error."""
    assert (
        with_keys.get("/v1/popular", headers=[(b"X-Api-Key", b"\xff\x00 \xc3")]).status_code == 401
    )


def test_admin_scope_of_a_key(world) -> None:
    """A key with the admin scope opens admin routes.

    Without caller checks the admin key is needed.
    """
    settings = replace(world[0], api_keys=parse_api_keys(KEYS.split(",")))
    client = TestClient(create_app(settings, world[1], LivePath(settings)))
    assert client.get("/v1/releases", headers={"X-Api-Key": "boss-key-01234567"}).status_code == 200
    assert client.get("/v1/releases", headers={"X-Api-Key": "shop-key-01234567"}).status_code == 403


def test_rate_of_a_key(world) -> None:
    """The second request is a 429 with Retry-After; other keys have rates of their own."""
    client = keyed(world, 0.01)
    reader, shop = {"X-Api-Key": "reader-key-0123456"}, {"X-Api-Key": "shop-key-01234567"}
    client.get("/v1/popular", headers={"X-Api-Key": "reader-key-unknown"})
    codes = [
        client.get("/v1/popular", headers=headers).status_code for headers in (reader, reader, shop)
    ]
    assert codes == [200, 429, 200]
    refused = client.get("/v1/popular", headers=reader)
    assert (refused.json()["error"]["code"], 0 < int(refused.headers["retry-after"]) <= 100) == (
        "too_many_requests",
        True,
    )


def test_log_has_the_keys_name(world) -> None:
    """Request lines have the key's name and no secret, so that a deletion can be traced."""
    lines: list[str] = []
    settings = replace(world[0], api_keys=parse_api_keys(KEYS.split(",")))
    client = TestClient(create_app(settings, world[1], LivePath(settings), say=lines.append))
    client.get("/v1/popular", headers={"X-Api-Key": "shop-key-01234567"})
    client.get("/v1/popular", headers={"X-Api-Key": "shop-key-unknown!"})
    assert [json.loads(line).get("caller") for line in lines] == ["shop", None]
    assert "shop-key" not in "".join(lines)


ORIGIN = "https://shop.example"


@pytest.fixture
def for_pages(world) -> TestClient:
    """The API for pages of one origin, with keys."""
    settings = replace(world[0], cors_origins=(ORIGIN,), api_keys=parse_api_keys(KEYS.split(",")))
    app = create_app(settings, world[1], LivePath(settings))

    @app.get("/fails")
    def fails() -> None:
        raise ZeroDivisionError

    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "key", "expected"),
    [
        ("GET", "/v1/popular", "reader-key-0123456", 200),
        ("GET", "/v1/popular", "", 401),
        ("DELETE", "/v1/users/1", "reader-key-0123456", 403),
        ("GET", "/no/such", "", 404),
        ("PATCH", "/v1/users/1", "", 405),
        ("GET", "/v1/popular?k=0", "reader-key-0123456", 422),
        ("GET", "/fails", "", 500),
        ("HEAD", "/fails", "", 500),
    ],
)
def test_a_page_may_read_every_answer(for_pages, method, path, key, expected) -> None:
    """Errors too: without the header a page learns that something failed, and not what."""
    response = for_pages.request(method, path, headers={"Origin": ORIGIN, "X-Api-Key": key})
    assert (response.status_code, response.headers.get("access-control-allow-origin")) == (
        expected,
        ORIGIN,
    )
    assert bool(response.content) == (method != "HEAD")


def test_a_page_may_read_a_503(world, tmp_path) -> None:
    """A page of an allowed origin may read the 503 while Redis is away."""
    settings = replace(world[0], cors_origins=(ORIGIN,), bundle_dir=tmp_path)
    away = open_store("redis://127.0.0.1:1", "away", 100)
    client = TestClient(
        create_app(settings, away, LivePath(settings)), raise_server_exceptions=False
    )
    response = client.get("/health", headers={"Origin": ORIGIN})
    away.close()
    assert (response.status_code, response.headers.get("access-control-allow-origin")) == (
        503,
        ORIGIN,
    )
    assert "retry-after" in response.headers["access-control-expose-headers"]


def test_page_of_another_origin(for_pages) -> None:
    """It gets no CORS headers, whatever the answer."""
    response = for_pages.get("/fails", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_form_post_deletes_nobody(world, content_type) -> None:
    """A browser sends such a body without a preflight, so it is not taken for JSON."""
    settings, store = world
    store.merge_users([("formed", UserRecord(("1",), (1,), (None,), 1))], 0)
    client = TestClient(create_app(settings, store, LivePath(settings)))
    response = client.post(
        "/v1/user/delete", content=b'{"user_id": "formed"}', headers={"content-type": content_type}
    )
    assert (response.status_code, store.user_record("formed") is None) == (422, False)


def test_every_method_has_a_preflight(for_pages) -> None:
    """For each documented operation, with every header that the API reads."""
    document = for_pages.app.openapi()  # type: ignore[attr-defined]
    headers_asked = (
        "content-type,if-none-match,authorization,x-api-key,x-shortlist-admin-key,x-amz-date"
    )
    for path, operations in document["paths"].items():
        for method in operations:
            headers = {"Origin": ORIGIN, "Access-Control-Request-Method": method.upper()}
            response = for_pages.options(
                path, headers=headers | {"Access-Control-Request-Headers": headers_asked}
            )
            assert response.status_code == 200, (method, path, response.text)
            assert method.upper() in METHODS


def test_preflight_of_an_unknown_method(for_pages) -> None:
    """PATCH is no method of the API, and its preflight fails."""
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    assert for_pages.options("/v1/popular", headers=headers).status_code == 400


def test_log_names_the_gateways_key(world) -> None:
    """The name that the stack's authorizer gives is the caller; no rate of a key's holds for it."""
    lines: list[str] = []
    settings = replace(world[0], jwt_user_claim="user_id", api_key_rate=0.001)
    adapter = Adapter(create_app(settings, world[1], LivePath(settings), say=lines.append))
    for name in ("shop", "shop", ""):
        event = http_api("GET", "/v1/popular")
        context = {"key_name": name, "scope": "shortlist/read"}
        event["requestContext"]["authorizer"] = {"lambda": context}
        assert status(adapter, event) == 200
    assert [json.loads(line).get("caller") for line in lines] == ["shop", "shop", None]
