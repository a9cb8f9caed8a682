"""Checks that `sam local` finds a template's routes and function.

Serving them would need a container engine; this does not. It runs in the environment of
aws-sam-cli, whose own readers it uses.
"""

from __future__ import annotations

import os
import sys

FUNCTION = "Serve"


def unserved(template: str) -> list[str]:
    """The routes that `sam local` would not bring to the function unguarded; or `["no routes"]`."""
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    from samcli.lib.providers.api_provider import ApiProvider
    from samcli.lib.providers.sam_function_provider import SamFunctionProvider
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

    stacks, _ = SamLocalStackProvider.get_stacks(template)
    routes, functions = ApiProvider(stacks).api.routes, SamFunctionProvider(stacks)
    lost = []
    for route in routes:
        function = functions.get(route.function_name or "none")
        is_served = function is not None and function.name == FUNCTION
        if not is_served or route.authorizer_object is not None:
            lost.append(route.path)
    return lost if routes else ["no routes"]


if __name__ == "__main__":
    lost = unserved(sys.argv[1])
    if lost:
        sys.exit(
            f"sam local start-api does not serve {', '.join(lost)}: "
            "spell the integration's address out, without references"
        )
