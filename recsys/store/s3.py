"""Opens S3, reads its addresses, and translates boto3's errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shortlist.recsys.errors import ArtefactsUnavailable, InvalidSettings

SCHEME = "s3://"

_SIGN_IN = re.compile(r"://.*@", re.DOTALL)


def bucket_and_prefix(uri: str, setting: str) -> tuple[str, str]:
    """The bucket and prefix of an s3:// address.

    The prefix has no slashes around it. setting: the name for the error.

    Raises:
        InvalidSettings: the address names no bucket of S3.
    """
    bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket:
        raise InvalidSettings(f"{setting}={uri!r} names no bucket: write s3://bucket/prefix")
    return bucket, prefix.strip("/")


def open_client() -> Any:  # noqa: ANN401 - boto3 clients have no static type
    """A client of S3 with short timeouts.

    Credentials, region and `AWS_ENDPOINT_URL` come from where boto3 always takes them.
    """
    import boto3
    from botocore.config import Config

    # boto3's own limits, 60 s for each wait and 5 attempts, outlast a request and a health check.
    retries = {"max_attempts": 3, "mode": "standard"}
    config = Config(connect_timeout=3, read_timeout=30, retries=retries)
    return boto3.client("s3", config=config)


def without_secrets(error: BaseException) -> str:
    """The text of an error, without credentials.

    An endpoint's address may hold a user and a password.
    """
    return _SIGN_IN.sub("://…@", str(error))


@contextmanager
def errors(bucket: str) -> Iterator[None]:
    """Turns boto3's errors into ArtefactsUnavailable.

    A reply that is no S3's, as a proxy's page, is one too.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ResponseParserError, HTTPError) as error:
        why = without_secrets(error)
        raise ArtefactsUnavailable(
            f"s3://{bucket} does not answer as it should ({why}): "
            "check its name, the network and permissions"
        ) from error
