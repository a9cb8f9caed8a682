"""Prints the CloudFormation that SAM makes of a template.

cfn-lint then checks it as well, offline. It runs in the environment of aws-sam-cli, whose
translator it uses.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CODE = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::StateMachine": "DefinitionUri"}


class NoManagedPolicies:
    """No managed policies: SAM asks for a template's, and ours writes out its own."""

    def load(self) -> dict[str, str]:
        """No policy."""
        return {}


def expanded(path: Path) -> dict[str, Any]:
    """The template without its transform."""
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    from samtranslator.translator.transform import transform
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(path.read_text())
    for resource in template["Resources"].values():
        if resource["Type"] in CODE:
            resource["Properties"][CODE[resource["Type"]]] = "s3://bucket/uploaded-by-deploy"
    return dict(transform(template, {}, NoManagedPolicies()))


if __name__ == "__main__":
    json.dump(expanded(Path(sys.argv[1])), sys.stdout, indent=1)
