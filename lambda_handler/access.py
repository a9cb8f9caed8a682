"""Authorizes callers by API key or by API Gateway's authorizer.

Claims are read from the event alone, which only the gateway can write, never from a header. Each
route has one scope. A caller with that scope may act for every user. A caller whose token names a
user may read, send events and delete for that user.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from shortlist.lambda_handler.rate_limit import RateLimit
from shortlist.lambda_handler.request_context import current
from shortlist.recsys.api_keys import SCOPES, digest_of
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.settings import Settings
from shortlist.recsys.values import id_of

ADMIN_HEADER = "X-Shortlist-Admin-Key"
KEY_HEADER = "X-Api-Key"
CALLER = "shortlist.caller"
"""Key of the caller in the ASGI scope of an authorized request."""

OPEN = frozenset({"/health", "/v1/health", "/health/ready", "/v1/health/ready"})
"""Routes of load balancers, which have no credentials."""

READ = frozenset(
    {
        "/recommend",
        "/v1/recommend",
        "/v1/user/recommendations",
        "/v1/users/{user_id}/recommendations",
        "/v1/rank",
        "/v1/items/{item_id}",
        "/v1/item",
        "/v1/items/{item_id}/similar",
        "/v1/item/similar",
        "/v1/popular",
        "/v1/trending",
    }
)
EVENTS = frozenset({"/v1/events"})
DELETE = frozenset({"/v1/users/{user_id}", "/v1/user/delete"})
OPERATIONS = frozenset({"/metrics", "/v1/metrics", "/model/info", "/v1/model/info"})
OPERATIONS |= {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
OWN = frozenset({"read", "events", "delete"})
"""Scopes that a caller has for the one user whom their token names."""

# Admin routes need their own key or scope: one IAM policy for `*` must not open them.
SIGNED = frozenset(SCOPES) - {"admin"}
"""Scopes of a caller with a verified AWS signature; IAM policies limit methods and paths."""

OPERATOR = frozenset({"admin", "operations"})
"""Scopes that the admin key gives."""

CHALLENGE = {"WWW-Authenticate": f'ApiKey header="{KEY_HEADER}", Bearer'}

_ONLY_USER: ContextVar[str | None] = ContextVar("only_user", default=None)
"""The only user that the current request may concern; None for any."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls; user: named by their token; key: the name of their API key.

    gateway_key: the name of a key that the gateway has checked, which throttles such callers.
    """

    scopes: frozenset[str]
    user: str | None = None
    key: str | None = None
    gateway_key: str | None = None


def scope_of(path: str) -> str | None:
    """The scope that a route needs.

    None for an open one, admin for one not listed.
    """
    if path in OPEN:
        return None
    named = (("read", READ), ("events", EVENTS), ("delete", DELETE), ("operations", OPERATIONS))
    return next((scope for scope, paths in named if path in paths), "admin")


def check_user(user: str) -> None:
    """Checks that the current request may concern a user.

    Raises:
        HTTPException: 403; the caller may act for another user alone.
    """
    only_user = _ONLY_USER.get()
    if only_user is not None and only_user != user:
        remedy = "act for that one, or bring a token with the scope for all"
        raise HTTPException(403, f"the token names another user: {remedy}")


def is_admin_key(settings: Settings, given: str | None) -> bool:
    """Compares with the configured admin key, in constant time."""
    if settings.admin_key is None or given is None:
        return False
    # compare_digest refuses non-ASCII strings, and headers may have any byte.
    sent = given.encode(errors="surrogatepass")
    return hmac.compare_digest(sent, settings.admin_key.encode())


def secure(app: FastAPI, settings: Settings) -> None:
    """Guards every route added so far, if a setting asks for it.

    Raises:
        TypeError: a part of the app is no route with a path, so that its scope is not known.
    """
    if settings.jwt_user_claim is None and not settings.api_keys:
        return  # open, as behind a gateway that authorizes every call
    access = Access(settings)
    for route in app.routes:
        if not isinstance(route, Route):
            raise TypeError(f"{route!r} cannot be guarded: add it as a route with a path")
        route.app = access.guard(scope_of(route.path), route.app)


class Access:
    """Identifies callers and enforces their scopes and rates."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        rate = settings.api_key_rate
        self._limit = RateLimit(rate) if rate > 0 else None

    def guard(self, needed: str | None, app: ASGIApp) -> ASGIApp:
        """Wraps an app.

        Callers need the scope, or act for themselves.
        """
        if needed is None:
            return app

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            caller = self._caller(scope)
            self._check_rate(caller)
            token = _ONLY_USER.set(_only_user(caller, needed))
            scope[CALLER] = caller
            current().caller = caller.key or caller.gateway_key
            try:
                await app(scope, receive, send)
            finally:
                _ONLY_USER.reset(token)

        return guarded

    def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        caller = self._by_key(headers.get(KEY_HEADER)) or self._by_gateway(scope.get("aws.event"))
        if is_admin_key(self._settings, headers.get(ADMIN_HEADER)):
            known = caller or Caller(frozenset(), key="admin")
            caller = replace(known, scopes=known.scopes | OPERATOR)
        if caller is None:
            message = (
                f"the caller is unknown: send {KEY_HEADER} with a known key, "
                "or a token that the API's authorizer takes"
            )
            raise HTTPException(401, message, CHALLENGE)
        return caller

    def _by_key(self, given: str | None) -> Caller | None:
        """The caller with a key.

        All keys are compared, so that the time reveals no match.
        """
        if given is None:
            return None
        digest = digest_of(given)  # settings have no key in clear text
        keys = self._settings.api_keys
        matches = [key for key in keys if hmac.compare_digest(digest, key.digest)]
        return Caller(matches[0].scopes, key=matches[0].name) if matches else None

    def _by_gateway(self, event: Mapping[str, Any] | None) -> Caller | None:
        """The caller verified by API Gateway.

        Our own server has no event.
        """
        claim = self._settings.jwt_user_claim
        if claim is None or event is None:
            return None
        return _verified(event["requestContext"], claim)

    def _check_rate(self, caller: Caller) -> None:
        if caller.key is None or self._limit is None:
            return  # the gateway throttles the others
        wait = self._limit.seconds_to_wait(caller.key)
        if wait > 0:
            rate = self._settings.api_key_rate
            message = f"more than {rate:g} requests a second by this key: wait"
            raise HTTPException(429, message, {"Retry-After": str(math.ceil(wait))})


def _only_user(caller: Caller, needed: str) -> str | None:
    """The only user whom a caller may act for.

    None for any.
    """
    if needed in caller.scopes:
        return None
    if caller.user is not None and needed in OWN:
        return caller.user
    remedy = f"a token gives it as shortlist/{needed}, an API key as {needed}"
    raise HTTPException(403, f"the caller lacks the scope {needed!r}: {remedy}")


def _verified(context: Mapping[str, Any], user_claim: str) -> Caller | None:
    """The caller in an event's request context.

    None if the gateway has verified nobody.
    """
    claims = _claims(context)
    if claims is None:
        return Caller(SIGNED) if _signature(context).get("userArn") else None
    name = claims.get("key_name")  # the stack's own authorizer gives it
    known = name if isinstance(name, str) and name else None
    return Caller(_scopes(claims), _user_id(claims.get(user_claim)), gateway_key=known)


def _user_id(claim: object) -> str | None:
    """The user id in a claim, normalised as everywhere.

    None if it has none.
    """
    try:
        return id_of(claim)
    except InvalidInput:
        return None


def _claims(context: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Claims of a token, an authorizer or an identity pool.

    None if there was no authorizer, or one that verifies signatures.
    """
    pool_user = _pool_user(context)
    if pool_user is not None:
        return {"identityId": pool_user}
    authorizer = _mapping(context.get("authorizer"))
    if not authorizer or "iam" in authorizer:
        return None
    if "jwt" in authorizer:
        return _mapping(_mapping(authorizer["jwt"]).get("claims"))
    for kind in ("lambda", "claims"):
        if kind in authorizer:
            return _mapping(authorizer[kind])
    return authorizer  # payload 1.0 has a Lambda authorizer's context here


def _signature(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Who signed the request, as verified by AWS."""
    iam = _mapping(_mapping(context.get("authorizer")).get("iam"))
    return iam or _mapping(context.get("identity"))


def _pool_user(context: Mapping[str, Any]) -> str | None:
    """An identity pool's end user.

    They must not get a server's scopes.
    """
    signature = _signature(context)
    identity = _mapping(signature.get("cognitoIdentity")).get("identityId")
    return identity or signature.get("cognitoIdentityId")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes in claims, as `shortlist/read` or `shortlist:read`.

    A claim is a string, a list, or a list as API Gateway writes it: `[a b]`. A bare `read` is
    ignored: providers give such scopes to end users, for other services.
    """
    words: list[str] = []
    for name in ("scope", "scp", "scopes"):
        value = claims.get(name)
        if isinstance(value, str):
            words += value.strip("[]").replace(",", " ").split()
        elif isinstance(value, list):
            words += map(str, value)
    return frozenset(
        scope
        for scope in SCOPES
        if not {f"shortlist/{scope}", f"shortlist:{scope}"}.isdisjoint(words)
    )
