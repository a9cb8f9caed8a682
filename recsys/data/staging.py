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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from shortlist.recsys.errors import ArtefactsUnavailable, InvalidData
from shortlist.recsys.store.s3 import without_secrets

_GLOB = re.compile(r"[*?\[]")

EXTENSIONS = (".parquet", ".pq", ".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".dat")
"""What a table's file ends in; a text file may be compressed besides."""

COMPRESSIONS = (".gz", ".zst")

_METADATA = ".metadata.json"

_ROOT_SLASHES = 2
"""Of the address of a bucket alone; what lies below has more."""

_LAKES = {"delta": "_delta_log", "iceberg": "metadata"}
"""Of each kind of table that keeps a log of its files, the folder of the log."""
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


def extension_of(name: str) -> str:
    """What a name ends in, of EXTENSIONS and without a compression; else nothing."""
    stem = _without_compression(name.lower())
    return next((extension for extension in EXTENSIONS if stem.endswith(extension)), "")


def _without_compression(name: str) -> str:
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name


def lake_of(source: str, table: str) -> str | None:
    """Whether a directory is a "delta" or an "iceberg" table; None for any other source.

    Raises:
        InvalidData: the bucket is not there, or may not be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    is_directory = source.count("/") > _ROOT_SLASHES or not source.startswith("s3://")
    if not source or not is_directory or _GLOB.search(source) or extension_of(source):
        return None
    return next((lake for lake in _LAKES if _log_of(source, table, lake)), None)


def newest_metadata(source: str, table: str) -> str:
    """The newest metadata file of an Iceberg table: they are numbered from the first on.

    Raises:
        InvalidData, ArtefactsUnavailable: as `lake_of`.
    """
    names = [name for name in _log_of(source, table, "iceberg") if name.endswith(_METADATA)]
    return max(names, key=lambda name: (_number_in(name), name))


def _number_in(name: str) -> int:
    digits = re.search(
        r"[0-9]+", name.rpartition("/")[2]
    )  # 00002-….metadata.json, v2.metadata.json
    return int(digits[0]) if digits else -1


def _log_of(source: str, table: str, lake: str) -> dict[str, str]:
    """The version of each file of a lake's log; nothing where it is no such lake."""
    folder = f"{source.rstrip('/')}/{_LAKES[lake]}"
    if not source.startswith("s3://"):
        paths = sorted(path for path in Path(folder).glob("*") if path.is_file())
        log = {str(path): _file_version(path) for path in paths}
    else:
        with _s3_client(f"{folder}/", table) as (client, bucket, key):
            entries = _listed(client, bucket, key)
        log = {f"s3://{bucket}/{e['Key']}": _object_version(bucket, e) for e in entries}
    # A directory of people's own may be called metadata too.
    is_lake = lake != "iceberg" or any(name.endswith(_METADATA) for name in log)
    return log if is_lake else {}


def _object_version(bucket: str, entry: Mapping[str, Any]) -> str:
    return f"s3://{bucket}/{entry['Key']} {entry['ETag']}"


def read_text(source: str, what: str) -> str:
    """The text of a small file, local or on S3; `what` names it in errors.

    Raises:
        InvalidData: there is no such file, or it is no UTF-8.
        ArtefactsUnavailable: S3 did not answer.
    """
    with staged(source, what) as files:
        try:
            return files[0].path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidData(
                f"{what}: cannot read {source!r} ({error}): give a text file in UTF-8"
            ) from error


def check_paths(source: str, table: str) -> None:
    """Finds out at once whether a local source is there; S3 is asked when it is read.

    Raises:
        InvalidData: it is not.
    """
    if not source.startswith("s3://") and lake_of(source, table) is None:
        _local(source, table)


def file_versions(source: str, table: str) -> list[str]:
    """The name of each file of `source` with its ETag, or its size and time of change.

    Of a Delta or Iceberg table it is its log. Equal texts mean that a stage need not run again.

    Raises:
        InvalidData: the object or the bucket is not there, or may not be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    lake = lake_of(source, table)
    if lake is not None:
        return list(_log_of(source, table, lake).values())
    if not source.startswith("s3://"):
        return [_file_version(path) for path in _files(source)]
    with _s3_client(source, table) as (client, bucket, key):
        if _is_one(key):
            return [f"{source} {client.head_object(Bucket=bucket, Key=key)['ETag']}"]
        entries = _objects(client, bucket, key)
        return [_object_version(bucket, entry) for entry in entries]


def _file_version(path: Path) -> str:
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _local(source: str, table: str) -> list[StagedFile]:
    paths = _files(source)
    if paths:
        return [StagedFile(str(path), path) for path in paths]
    if _GLOB.search(source):
        raise InvalidData(f"{table}: no file matches {source!r}: check the pattern, or give a path")
    if source and Path(source).is_dir():
        raise InvalidData(
            f"{table}: the directory {source!r} has no file that ends in {', '.join(EXTENSIONS)}: "
            "give the directory of the table's files"
        )
    near = get_close_matches(Path(source).name, _names_next_to(Path(source)), n=3, cutoff=0.5)
    others = f"; there is {', '.join(map(repr, near))}" if near else ""
    raise InvalidData(
        f"{table}: there is no file {source!r}{others}: "
        "give an existing path, a glob or an s3:// address"
    )


def _names_next_to(path: Path) -> list[str]:
    """The names in a path's directory, or none where it cannot be listed."""
    try:
        return sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []


def _files(source: str) -> list[Path]:
    """The file `source`, the files below it, or those that match it, sorted."""
    if Path(source).is_file():  # first, for a name may hold brackets
        return [Path(source)]
    if source and Path(source).is_dir():
        return _below(Path(source))
    matches = map(Path, glob.glob(source, recursive=True))  # noqa: PTH207  may be absolute
    out: list[Path] = []
    for path in sorted(matches):
        if _is_data(path.name):
            out += _below(path) if path.is_dir() else [path]
    return list(dict.fromkeys(out))


def _below(directory: Path) -> list[Path]:
    """The data files below a directory, sorted."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [path for path in paths if _is_table(path.relative_to(directory).parts)]


def _is_table(parts: Sequence[str]) -> bool:
    """Whether a path below a directory is a data file: nothing in it is hidden or a marker."""
    return all(map(_is_data, parts)) and bool(extension_of(parts[-1]))


def _is_data(name: str) -> bool:
    """Whether a matched name is no marker such as `_SUCCESS`, and not hidden."""
    return not name.startswith(("_", "."))


def _download(source: str, table: str, directory: Path) -> list[StagedFile]:
    with _s3_client(source, table) as (client, bucket, key):
        keys = [key]
        if not _is_one(key):
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
    """The listed entries below `pattern` or whose key matches it, sorted.

    A star does not cross a slash.
    """
    if not _GLOB.search(pattern):
        prefix = f"{pattern.rstrip('/')}/"
        below = _listed(client, bucket, prefix)
        return [e for e in below if _is_table(e["Key"].removeprefix(prefix).split("/"))]
    entries = _listed(client, bucket, _GLOB.split(pattern, maxsplit=1)[0])
    return [entry for entry in entries if _matches(entry["Key"], pattern)]


def _listed(client: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:  # noqa: ANN401  boto3 clients have no static type
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    entries = [entry for page in pages for entry in page.get("Contents", [])]
    return sorted(entries, key=lambda entry: str(entry["Key"]))


def _is_one(key: str) -> bool:
    """Whether a key is one object's; what ends in a slash or in no suffix is a directory."""
    return not _GLOB.search(key) and not key.endswith("/") and bool(PurePosixPath(key).suffix)


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
