"""Shows the live answers of two releases side by side.

Each is asked of a whole API of its own, whose pointer names the release: what is shown is what the
API would answer if the release served.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.types import ASGIApp

from shortlist.batch.studio.call import call, parsed
from shortlist.recsys.errors import InvalidInput, Unavailable
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import connector

OK = 200
CLIENT_ERRORS = range(400, 500)


class Pinned(RedisStore):
    """A store in which one release serves, whatever the pointer says."""

    def __init__(self, settings: Settings, store: RedisStore, version: str, timeout: int) -> None:
        connect = connector(settings.redis_url, timeout, store.policy)
        super().__init__(connect, settings.namespace, store.policy)
        self._version = version

    def release(self) -> ReleasePointer:
        """See RedisStore."""
        return ReleasePointer(self._version)


class Comparison:
    """Live answers of any release."""

    def __init__(self, settings: Settings, store: RedisStore, timeout: int) -> None:
        """timeout: milliseconds of a command to Redis."""
        self._settings, self._store, self._timeout = settings, store, timeout
        self._apis: dict[str, ASGIApp] = {}
        self._lock = Lock()

    def answer(self, version: str, user: str, k: int) -> list[dict[str, Any]]:
        """A user's k items of a release, with scores and reasons, as the API has them.

        Raises:
            InvalidInput: the API refuses the request.
            Unavailable: it has no answer.
        """
        body = {"user_id": user, "k": k, "use_cache": False, "explain": True}
        with self._lock:  # one at a time: the live path computes for one request
            api = self._api(version)
            status, content = asyncio.run(call(api, "POST", "/v1/recommend", body=body))
        answer = parsed(content)
        if status == OK:
            items: list[dict[str, Any]] = answer["recommendations"]
            return items
        message = answer.get("error", {}).get("message", f"status {status}")
        raise (InvalidInput if status in CLIENT_ERRORS else Unavailable)(message)

    def _api(self, version: str) -> ASGIApp:
        if version not in self._apis:
            store = Pinned(self._settings, self._store, version, self._timeout)
            # By its name: an import contract keeps the batch and the API apart.
            app = import_module("shortlist.lambda_handler.app")
            self._apis[version] = app.create_app(self._open, store, self._live)
        return self._apis[version]

    @cached_property
    def _live(self) -> Any:  # noqa: ANN401 - the API's LivePath
        return import_module("shortlist.lambda_handler.live").LivePath(self._settings)

    @property
    def _open(self) -> Settings:
        """Settings of an API for this process alone, which remembers nothing on disk.

        Elsewhere its pointer would be taken for the last known one.
        """
        return replace(
            self._settings,
            bundle_dir=Path(os.devnull),
            api_keys=(),
            jwt_user_claim=None,
            base_paths=(),
            cors_origins=(),
        )
