"""Tests the admin routes: access by key, and immediate effect.

Without a key the routes are closed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.store import admin as admin_module
from shortlist.recsys.store.admin import AdminStore, ReleaseNote
from shortlist.recsys.store.artefacts_directory import DirectoryArtefacts
from shortlist.recsys.store.records import Canary, ReleasePointer
from shortlist.recsys.store.release_files import build_manifest

KEY = "a-key-of-the-tests-own"
ROUTES = [
    ("GET", "/v1/releases"),
    ("POST", "/v1/releases/rollback"),
    ("POST", "/v1/releases/x/promote"),
    ("POST", "/v1/releases/x/canary"),
    ("POST", "/v1/items/1/block"),
    ("POST", "/v1/items/1/unblock"),
]


def app_client(own, key: str | None, sent: str | None = None) -> TestClient:
    """The API with a configured key, and a client that sends one."""
    settings, store = own
    settings = replace(settings, admin_key=key, release_cache_seconds=3600.0)
    headers = {} if sent is None else {"X-Shortlist-Admin-Key": sent}
    return TestClient(create_app(settings, store, LivePath(settings)), headers=headers)


@pytest.fixture
def client(own) -> TestClient:
    """A client who may."""
    return app_client(own, KEY, KEY)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("key", "sent"),
    [(None, None), (None, ""), (KEY, None), (KEY, "another key"), (KEY, ""), (KEY, "é")],
)
def test_closed_without_the_key(own, method, path, key, sent) -> None:
    """Without the right key each route is a 403 in the envelope, and nothing changes."""
    settings, store = own
    before = store.release()
    app = create_app(replace(settings, admin_key=key), store, LivePath(settings))
    headers = [] if sent is None else [("X-Shortlist-Admin-Key", sent.encode("latin-1"))]
    response = TestClient(app).request(method, path, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    assert store.release() == before
    assert store.blocked() == frozenset()


def test_the_releases_are_listed(client, own, published) -> None:
    """Releases with lists, and the serving one; a release whose lists expired is not listed."""
    _, store = own
    AdminStore(store).note_release(ReleaseNote("expired", 1, 0.5))
    answer = client.get("/v1/releases").json()
    assert (answer["current"], answer["previous"], answer["canary"]) == (
        published.version,
        None,
        None,
    )
    store.set_release(ReleasePointer(published.version, None, Canary("next", 5.0)))
    assert client.get("/v1/releases").json()["canary"] == {"version": "next", "percent": 5.0}
    assert [release["version"] for release in answer["releases"]] == [published.version]
    assert 0 < answer["releases"][0]["ndcg_at_10"] <= 1


@pytest.fixture
def other(own, published, tmp_path):
    """A second release with lists, named "other"."""
    settings, store = own
    other = tmp_path / "other"
    other.mkdir()
    build_manifest(other, version="other")
    DirectoryArtefacts(Path(settings.artefacts)).publish(other)
    try:
        store.write_popular("other", store.popular(published.version))
        for of in (store.keys.items, store.keys.rows):
            store.redis.hset(of("other"), mapping=store.redis.hgetall(of(published.version)))
        yield "other"
    finally:
        shutil.rmtree(Path(settings.artefacts) / "other")


def test_promote_and_roll_back(client, published, other) -> None:
    """The next answer is of the other release, although the pointer is cached for an hour."""
    assert (
        client.post("/recommend", json={"user_id": "1"}).json()["model_version"]
        == published.version
    )
    assert client.post(f"/v1/releases/{other}/promote").json() == {
        "current": "other",
        "previous": published.version,
        "canary": None,
    }
    assert client.get("/v1/popular").json()["model_version"] == "other"
    assert client.post("/v1/releases/rollback").json()["current"] == published.version
    assert client.get("/v1/popular").json()["model_version"] == published.version


def test_a_canary_over_http(client, own, published, other) -> None:
    """A canary begins and ends; the serving release, a retired one and 101% are refused."""
    _, store = own

    def answer(version: str, percent: float) -> tuple[int, object]:
        response = client.post(f"/v1/releases/{version}/canary", json={"percent": percent})
        return response.status_code, response.json()

    pointer = {"current": published.version, "previous": None, "canary": None}
    canary = {"version": other, "percent": 12.5}
    assert answer(other, 12.5) == (200, pointer | {"canary": canary})
    assert store.release() == ReleasePointer(published.version, None, Canary(other, 12.5))
    assert answer(other, 0) == (200, pointer)
    assert store.release().canary is None
    store.redis.expire(store.keys.popular(other), 1000)
    for version, percent, status, word in [
        (published.version, 5, 422, "serves everybody already"),
        (other, 5, 422, f"shortlist release canary {other} --percent 5"),
        (other, 101, 422, "less than or equal to 100"),
        ("none", 5, 404, "none"),
    ]:
        code, body = answer(version, percent)
        assert (code, word in body["error"]["message"]) == (status, True)
    assert store.release().canary is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/releases/none/promote", 404),
        ("/v1/releases/rollback", 422),
        ("/v1/releases/..%2Fx/promote", 404),
    ],
)
def test_broken_release_is_not_promoted(client, own, path, status) -> None:
    """The answer has the reason, and the pointer stays."""
    _, store = own
    before = store.release()
    assert client.post(path).status_code == status
    assert store.release() == before


def test_expired_release_is_not_promoted(client, own, published) -> None:
    """A release whose lists expired is refused, as it would serve nobody."""
    _, store = own
    store.set_release(ReleasePointer("other", published.version))
    store.redis.delete(store.keys.popular(published.version))
    response = client.post("/v1/releases/rollback")
    assert (response.status_code, store.release().current) == (422, "other")
    assert "its lists expired" in response.json()["error"]["message"]


def test_block_and_unblock(client, published) -> None:
    """A blocked item leaves the cached list at once, its own page says so, and it can come back."""
    user = published.dataset.user_ids[0]

    def ids() -> list[str]:
        answer = client.post("/recommend", json={"user_id": user, "k": 10}).json()
        return [item["item_id"] for item in answer["recommendations"]]

    first = ids()
    assert client.post(f"/v1/items/{first[0]}/block").json() == {
        "item_id": first[0],
        "blocked": True,
    }
    assert ids()[:9] == first[1:]
    assert client.get(f"/v1/items/{first[0]}").json()["available"] is False
    assert client.post(f"/v1/items/{first[0]}/unblock").json() == {
        "item_id": first[0],
        "blocked": False,
    }
    assert ids() == first


def test_blocking_limits(client, published, monkeypatch) -> None:
    """404 for an item that nobody could be shown; 422 beyond the bound."""
    ids = published.dataset.catalogue.ids
    assert client.post("/v1/items/no-such-item/block").status_code == 404
    monkeypatch.setattr(admin_module, "MAX_BLOCKED", 1)
    assert [client.post(f"/v1/items/{item}/block").status_code for item in ids[:2]] == [200, 422]
