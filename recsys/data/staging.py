"""Resolves paths, globs and s3:// addresses to local files.

Objects of S3 are copied to a temporary directory first, so that every reader works on local files.
boto3 takes credentials, region and `AWS_ENDPOINT_URL` from where it always does.
"""

# Polars can scan Parquet on S3 by itself (tried with 2.1.0), but it would be a second way rather
# than a replacement:
# - CSV and `.dat` have to be copied all the same, and `file_versions` needs the ETags of a listing.
# - Its globs take markers such as `_SUCCESS.parquet` and hidden objects for data.
# - Its errors are text without a code; where the endpoint is down, with the endpoint's password.

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from shortlist.recsys.errors import ArtefactsUnavailable, InvalidData
from shortlist.recsys.store.s3 import without_secrets

_GLOB = re.compile(r"[*?\[]")
# Long enough for a slow network, short enough to tell a wrong endpoint before a person gives up.
_TIMEOUT_S = 10
# boto3's own pool of connections has 10.
_COPIES_AT_ONCE = 8
_DENIED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A local file; `name` is its path or address for messages, `path` its place."""

    name: str
    path: Path


@contextmanager
def staged(source: str, table: str) -> Iterator[list[StagedFile]]:
    """The files of `source` in the order of their names.

    Copies from S3 live as long as the context.

    Raises:
        InvalidData: there is no such file, bucket or object, or it may not be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    if not source.startswith("s3://"):
        yield _local(source, table)
        return
    with tempfile.TemporaryDirectory(prefix="shortlist-s3-") as directory:
        yield _download(source, table, Path(directory))


def file_versions(source: str, table: str) -> list[str]:
    """The name of each file of `source` with its ETag, or its size and time of change.

    Equal texts mean that a stage need not run again.

    Raises:
        InvalidData: the object or the bucket is not there, or may not be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    if not source.startswith("s3://"):
        return [_file_version(path) for path in _files(source)]
    with _s3_client(source, table) as (client, bucket, key):
        if not _GLOB.search(key):
            return [f"{source} {client.head_object(Bucket=bucket, Key=key)['ETag']}"]
        entries = _objects(client, bucket, key)
        return [f"s3://{bucket}/{entry['Key']} {entry['ETag']}" for entry in entries]


def _file_version(path: Path) -> str:
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _local(source: str, table: str) -> list[StagedFile]:
    if Path(source).is_dir():
        raise InvalidData(
            f"{table}: {source!r} is a directory: "
            f"give a file, or a glob such as '{source}/*.parquet'"
        )
    paths = _files(source)
    if not paths and not _GLOB.search(source):
        raise InvalidData(
            f"{table}: there is no file {source!r}: "
            "give an existing path, a glob or an s3:// address"
        )
    if not paths:
        raise InvalidData(f"{table}: no file matches {source!r}: check the pattern, or give a path")
    return [StagedFile(str(path), path) for path in paths]


def _files(source: str) -> list[Path]:
    """The file `source`, or the files that match it, sorted."""
    if Path(source).is_file():  # first, for a name may hold brackets
        return [Path(source)]
    matches = map(Path, glob.glob(source, recursive=True))  # noqa: PTH207  may be absolute
    return sorted(path for path in matches if _is_data(path.name) and path.is_file())


def _is_data(name: str) -> bool:
    """Whether a matched name is no marker such as `_SUCCESS`, and not hidden."""
    return not name.startswith(("_", "."))


def _download(source: str, table: str, directory: Path) -> list[StagedFile]:
    with _s3_client(source, table) as (client, bucket, key):
        keys = [key]
        if _GLOB.search(key):
            keys = [entry["Key"] for entry in _objects(client, bucket, key)]
        if not keys:
            raise InvalidData(
                f"{table}: no object matches {source!r}: check the bucket and the pattern"
            )
        # A directory each, because objects of different prefixes may have the same name.
        directories = [directory / str(number) for number in range(len(keys))]
        with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
            return list(pool.map(partial(_copy, client, bucket), keys, directories))


@contextmanager
def _s3_client(source: str, table: str) -> Iterator[tuple[Any, str, str]]:
    """A client of S3, and the bucket and key of `source`; translates errors of the body."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
    )

    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise InvalidData(
            f"{table}: {source!r} names no object: write s3://BUCKET/KEY, where KEY may be a glob"
        )
    config = Config(
        connect_timeout=_TIMEOUT_S, read_timeout=6 * _TIMEOUT_S, retries={"total_max_attempts": 3}
    )
    try:
        yield boto3.client("s3", config=config), bucket, key
    except ClientError as error:
        raise _explained(error.response, source, table) from error
    except NoCredentialsError as error:
        raise InvalidData(
            f"{table}: no AWS credentials to read {source!r}: set AWS_PROFILE or a key pair"
        ) from error
    except (ParamValidationError, ValueError) as error:
        said = without_secrets(error).replace("\n", " ")
        raise InvalidData(
            f"{table}: {source!r} cannot be asked of S3 ({said}): check it and AWS_ENDPOINT_URL"
        ) from error
    except BotoCoreError as error:
        said = without_secrets(error)
        raise ArtefactsUnavailable(
            f"{table}: S3 did not answer for {source!r} ({said}): check the endpoint"
        ) from error


def _explained(response: Any, source: str, table: str) -> InvalidData | ArtefactsUnavailable:  # noqa: ANN401  boto3 is untyped
    """The error of this package for an error response of S3."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _DENIED:
        return InvalidData(f"{table}: S3 refuses {source!r} ({code}): check credentials and policy")
    if status >= 500:  # noqa: PLR2004  HTTP's own number
        return ArtefactsUnavailable(f"{table}: S3 failed for {source!r} ({code}): try again")
    return InvalidData(f"{table}: S3 has no {source!r} ({code}): check the bucket and the key")


def _objects(client: Any, bucket: str, pattern: str) -> list[dict[str, Any]]:  # noqa: ANN401  boto3 clients have no static type
    """The listed entries whose key matches `pattern`, sorted; a star does not cross a slash."""
    prefix = _GLOB.split(pattern, maxsplit=1)[0]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    entries = [entry for page in pages for entry in page.get("Contents", [])]
    matching = [entry for entry in entries if _matches(entry["Key"], pattern)]
    return sorted(matching, key=lambda entry: str(entry["Key"]))


def _matches(key: str, pattern: str) -> bool:
    names, patterns = key.split("/"), pattern.split("/")
    if len(names) != len(patterns) or not _is_data(names[-1]):
        return False
    return all(map(fnmatchcase, names, patterns))


def _copy(client: Any, bucket: str, key: str, directory: Path) -> StagedFile:  # noqa: ANN401  boto3 clients have no static type
    directory.mkdir()
    path = directory / (PurePosixPath(key).name or "object")
    client.download_file(bucket, key, str(path))
    return StagedFile(f"s3://{bucket}/{key}", path)
