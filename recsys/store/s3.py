"""What all who keep files in S3 share: how an address is read, a client that does not hang, and errors of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shortlist.recsys.errors import ArtefactsUnavailable, InvalidSettings

SCHEME = "s3://"

_SIGN_IN = re.compile(r"://.*@", re.DOTALL)


def bucket_and_prefix(uri: str, setting: str) -> tuple[str, str]:
    """The bucket of s3://bucket/prefix, and the prefix without slashes around it.

    Raises:
        InvalidSettings: the address names no bucket of S3; `setting` is who said it.
    """
    bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket:
        raise InvalidSettings(f"{setting}={uri!r} names no bucket: write s3://bucket/prefix")
    return bucket, prefix.strip("/")


def open_client() -> Any:  # noqa: ANN401 - boto3 clients have no static type
    """A client of S3; credentials, region and `AWS_ENDPOINT_URL` come from where boto3 always takes them."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=3, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"}
        ),
    )


def without_secrets(error: BaseException) -> str:
    """The text of an error, whose address of an endpoint may have a user and a password."""
    return _SIGN_IN.sub("://…@", str(error))


@contextmanager
def errors(bucket: str) -> Iterator[None]:
    """Turns what boto3 raises into ArtefactsUnavailable, also where the answer is none of S3's (a proxy's page)."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ResponseParserError, HTTPError) as error:
        why = without_secrets(error)
        message = f"s3://{bucket} does not answer as it should ({why}): check its name, the network and permissions"
        raise ArtefactsUnavailable(message) from error
