"""Checks that `sam local` finds the routes and the function of a template, without the container engine that it needs to serve.

It runs in the environment of aws-sam-cli, whose own readers it asks.
"""

from __future__ import annotations

import os
import sys

FUNCTION = "Serve"


def unserved(template: str) -> list[str]:
    """The routes that `sam local start-api` would not bring to the function; `["no routes"]` where it finds none."""
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    from samcli.lib.providers.api_provider import ApiProvider
    from samcli.lib.providers.sam_function_provider import SamFunctionProvider
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

    stacks, _ = SamLocalStackProvider.get_stacks(template)
    routes, functions = ApiProvider(stacks).api.routes, SamFunctionProvider(stacks)
    found = {route.path: functions.get(route.function_name or "none") for route in routes}
    return [path for path, function in found.items() if function is None or function.name != FUNCTION] if found else ["no routes"]


if __name__ == "__main__":
    lost = unserved(sys.argv[1])
    if lost:
        sys.exit(f"sam local start-api does not serve {', '.join(lost)}: spell the integration's address out, without references")
