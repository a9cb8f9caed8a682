"""Where a table's files are: a path, a glob or an s3:// address becomes a list of local files.

Objects of S3 are copied to a temporary directory first, so that every reader works on local files.
boto3 takes credentials, region and `AWS_ENDPOINT_URL` from where it always does.
"""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from shortlist.recsys.errors import ArtefactsUnavailable, InvalidData
from shortlist.recsys.store.s3 import without_secrets

_GLOB = re.compile(r"[*?\[]")
_TIMEOUT_S = 10
_COPIES_AT_ONCE = 8
_DENIED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True, slots=True)
class Staged:
    """A file to read: `name` as the caller would say it, `path` where it lies."""

    name: str
    path: Path


@contextmanager
def staged(source: str, table: str) -> Iterator[list[Staged]]:
    """The files of `source` in the order of their names; copies from S3 live as long as the context.

    Raises:
        InvalidData: there is no such file, bucket or object, or it may not be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    if not source.startswith("s3://"):
        yield _local(source, table)
        return
    with tempfile.TemporaryDirectory(prefix="shortlist-s3-") as directory:
        yield _download(source, table, Path(directory))


def marks(source: str, table: str) -> list[str]:
    """What tells whether the files of `source` have changed: each one's name with its digest, or its size and time.

    Raises:
        InvalidData: the object or the bucket is not there, or may not be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    if source.startswith("s3://"):
        with _asked(source, table) as (client, bucket, key):
            if not _GLOB.search(key):
                return [f"{source} {client.head_object(Bucket=bucket, Key=key)['ETag']}"]
            return [
                f"s3://{bucket}/{entry['Key']} {entry['ETag']}"
                for entry in _objects(client, bucket, key)
            ]
    return [f"{path} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in _files(source)]


def _local(source: str, table: str) -> list[Staged]:
    if Path(source).is_dir():
        raise InvalidData(
            f"{table}: {source!r} is a directory: give a file, or a glob such as '{source}/*.parquet'"
        )
    found = _files(source)
    if not found and not _GLOB.search(source):
        raise InvalidData(
            f"{table}: there is no file {source!r}: give an existing path, a glob or an s3:// address"
        )
    if not found:
        raise InvalidData(f"{table}: no file matches {source!r}: check the pattern, or give a path")
    return [Staged(str(path), path) for path in found]


def _files(source: str) -> list[Path]:
    """The file `source`, or the files that match it, sorted."""
    if Path(source).is_file():
        return [Path(source)]
    return sorted(
        p
        for p in map(Path, glob.glob(source, recursive=True))  # noqa: PTH207  may be absolute
        if _is_data(p.name) and p.is_file()
    )


def _is_data(name: str) -> bool:
    """Whether a matched name is a data file: not a marker such as `_SUCCESS`, and not hidden."""
    return not name.startswith(("_", "."))


def _download(source: str, table: str, directory: Path) -> list[Staged]:
    with _asked(source, table) as (client, bucket, key):
        keys = (
            [entry["Key"] for entry in _objects(client, bucket, key)]
            if _GLOB.search(key)
            else [key]
        )
        if not keys:
            raise InvalidData(
                f"{table}: no object matches {source!r}: check the bucket and the pattern"
            )
        with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
            return list(
                pool.map(
                    lambda told: _copy(client, bucket, told[1], directory / str(told[0])),
                    enumerate(keys),
                )
            )


@contextmanager
def _asked(source: str, table: str) -> Iterator[tuple[Any, str, str]]:
    """A client of S3, and the bucket and the key of `source`; what goes wrong with them in the body becomes ours."""
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
    """The error of ours that an error answer of S3 stands for."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _DENIED:
        return InvalidData(f"{table}: S3 refuses {source!r} ({code}): check credentials and policy")
    if status >= 500:  # noqa: PLR2004  HTTP's own number
        return ArtefactsUnavailable(f"{table}: S3 failed for {source!r} ({code}): try again")
    return InvalidData(f"{table}: S3 has no {source!r} ({code}): check the bucket and the key")


def _objects(client: Any, bucket: str, pattern: str) -> list[dict[str, Any]]:  # noqa: ANN401  boto3 clients have no static type
    """The entries of the keys that match `pattern`, sorted; a star does not cross a slash."""
    prefix = _GLOB.split(pattern, maxsplit=1)[0]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    entries = [entry for page in pages for entry in page.get("Contents", [])]
    kept = [
        e for e in entries if _is_data(PurePosixPath(e["Key"]).name) and _matches(e["Key"], pattern)
    ]
    return sorted(kept, key=lambda entry: str(entry["Key"]))


def _matches(key: str, pattern: str) -> bool:
    have, want = key.split("/"), pattern.split("/")
    return len(have) == len(want) and all(
        fnmatchcase(h, w) for h, w in zip(have, want, strict=True)
    )


def _copy(client: Any, bucket: str, key: str, directory: Path) -> Staged:  # noqa: ANN401  boto3 clients have no static type
    directory.mkdir()
    path = directory / (PurePosixPath(key).name or "object")
    client.download_file(bucket, key, str(path))
    return Staged(f"s3://{bucket}/{key}", path)
