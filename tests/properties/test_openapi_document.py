"""Tests answers to valid and invalid requests against OpenAPI.

Both are answered as the document says.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.testclient import TestClient

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store

EXAMPLES = 50
"""For each operation, with those that cover its document."""

UNLESS: dict[str, list[CheckFunction]] = {
    "POST /v1/events": [negative_data_rejection],  # a bad event is rejected by itself, with 200
    "POST /v1/releases/rollback": [
        positive_data_acceptance
    ],  # there may be no release to go back to
    "PUT /v1/admin/rules": [positive_data_acceptance],  # a rule may select nothing, or never hold
}
"""What the document cannot say of an operation."""


def silent_app() -> FastAPI:
    """An app that serves nothing but its document."""
    unasked = Settings.from_env({})
    return create_app(unasked, open_store(unasked.redis_url, "document", 1), LivePath(unasked))


schema = schemathesis.openapi.from_asgi("/openapi.json", silent_app())


def whole(value: Any) -> Any:
    """The value with 5 for each 5.0: JSON Schema has both as integers, the API only 5."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return (
        {name: whole(inner) for name, inner in value.items()} if isinstance(value, dict) else value
    )


def _depends_on_the_release(case: schemathesis.Case) -> bool:
    """Whether a request names attributes or asks for repeats, as not every release has them."""
    bodies = [each for each in (case.body, case.query) if isinstance(each, dict)]
    return any("where" in body or body.get("allow_repeats") for body in bodies)


@schema.parametrize()
@settings(max_examples=EXAMPLES)
def test_every_operation_answers_as_documented(case: schemathesis.Case, api: TestClient) -> None:
    """No 500, no undocumented status, header or body; valid requests pass, others are refused."""
    case.body = whole(case.body)
    excluded = list(UNLESS.get(case.operation.label, ()))
    if _depends_on_the_release(case):
        excluded.append(positive_data_acceptance)
    case.call_and_validate(
        app=api.app,
        headers={"X-Shortlist-Admin-Key": "the-properties-key"},
        excluded_checks=excluded,
    )


def test_a_later_document_is_whole() -> None:
    """FastAPI makes it again after a route more; the errors that routes name are still there."""
    app = silent_app()
    first = app.openapi()["components"]["schemas"]
    app.add_api_route("/later", lambda: None)
    again = app.openapi()
    assert "/later" in again["paths"]
    assert {"ErrorAnswer", "ErrorBody"} <= first.keys() == again["components"]["schemas"].keys()
