"""Checks that `sam local` finds the routes and the function of a template, without the container engine that it needs to serve.

It runs in the environment of aws-sam-cli, whose own readers it asks.
"""

from __future__ import annotations

import os
import sys

FUNCTION = "Serve"


def unserved(template: str) -> list[str]:
    """The routes that `sam local start-api` would not bring to the function, or guard; `["no routes"]` where it finds none."""
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    from samcli.lib.providers.api_provider import ApiProvider
    from samcli.lib.providers.sam_function_provider import SamFunctionProvider
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

    stacks, _ = SamLocalStackProvider.get_stacks(template)
    routes, functions = ApiProvider(stacks).api.routes, SamFunctionProvider(stacks)
    found = {
        r.path: (functions.get(r.function_name or "none"), r.authorizer_object) for r in routes
    }
    lost = [
        path
        for path, (to, guard) in found.items()
        if to is None or to.name != FUNCTION or guard is not None
    ]
    return lost if found else ["no routes"]


if __name__ == "__main__":
    lost = unserved(sys.argv[1])
    if lost:
        sys.exit(
            f"sam local start-api does not serve {', '.join(lost)}: spell the integration's address out, without references"
        )
