"""Serves the API below a base path.

Such a path is an API's stage, a domain's mapping, or a proxy's prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send


class BasePath:
    """Sets the base path of a request's path as its ASGI root path; ASGI middleware.

    The router and the links of the documentation use the root path. A path without a base path is
    left as it is, since some gateways remove it: a REST API removes its stage, but not the mapping
    of a domain.
    """

    def __init__(self, app: ASGIApp, base_paths: Sequence[str]) -> None:
        """base_paths: each begins with a slash and ends without one."""
        self._app = app
        self._bases = sorted(base_paths, key=len, reverse=True)  # the longest match wins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Uses the longest base path that matches."""
        if scope["type"] == "http":
            base = self._base_of(scope["path"])
            if base is not None:
                scope = {**scope, "root_path": base}
        await self._app(scope, receive, send)

    def _base_of(self, path: str) -> str | None:
        # With the slash: `/shop` is no base path of `/shopping/...`.
        return next((base for base in self._bases if path.startswith(f"{base}/")), None)
