"""Serves the API below a base path: an API's stage, a domain's mapping, or a proxy's prefix."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send


class BasePath:
    """Names the base path that a request's path begins with as its root path; ASGI middleware.

    The router and the links of the documentation heed the root path. A path without a base path is
    taken as it is, since some entries take it off themselves: a REST API does so with its stage,
    and not with the mapping of a domain.
    """

    def __init__(self, app: ASGIApp, base_paths: Sequence[str]) -> None:
        """base_paths: each with a slash before it and none after it."""
        self._app = app
        self._bases = sorted(base_paths, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes the longest that fits."""
        if scope["type"] == "http":
            base = self._base_of(scope["path"])
            if base is not None:
                scope = {**scope, "root_path": base}
        await self._app(scope, receive, send)

    def _base_of(self, path: str) -> str | None:
        return next((base for base in self._bases if path.startswith(f"{base}/")), None)
