"""Reads tables from S3: one object, a glob, and errors.

The HTTP is real, and each error names what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from shortlist.recsys.data import load
from shortlist.recsys.data.check import Given, check
from shortlist.recsys.data.mapping import read_mapping, write_mapping
from shortlist.recsys.data.staging import file_versions
from shortlist.recsys.errors import ArtefactsUnavailable, InvalidData
from shortlist.recsys.store import s3

BODY = b"user_id,item_id,timestamp\n1,2,3\n"


@pytest.fixture
def put(bucket: str) -> Iterator[Callable[[str, bytes], None]]:
    """Writes an object into the bucket."""
    client = boto3.client("s3")
    yield lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)
    client.close()


def test_one_object(bucket: str, put: Callable[[str, bytes], None]) -> None:
    """An s3:// address is read like a path, and rejected rows are reported by their address."""
    put("in/a.csv", BODY)
    assert load(f"s3://{bucket}/in/a.csv").dataset.user_ids == ("1",)


def test_glob(bucket: str, put: Callable[[str, bytes], None]) -> None:
    """A glob reads all its objects; a star does not cross a slash, markers are passed over."""
    for key, item in (
        ("in/b.csv", "8"),
        ("in/a.csv", "9"),
        ("in/deep/c.csv", "7"),
        ("in/_SUCCESS.csv", "6"),
    ):
        put(key, f"user_id,item_id,timestamp\n1,{item},{10 - int(item)}\n".encode())
    data = load(f"s3://{bucket}/in/*.csv").dataset
    assert [data.catalogue.ids[i] for i in data.events.item] == ["9", "8"]


@pytest.mark.parametrize("pattern", ["in/a.csv", "in/*.csv"])
def test_changed_object_has_another_mark(
    bucket: str, put: Callable[[str, bytes], None], pattern: str
) -> None:
    """By one address or by a glob; what was written again as it was has not changed."""
    source = f"s3://{bucket}/{pattern}"
    put("in/a.csv", BODY)
    first = file_versions(source, "interactions")
    put("in/a.csv", BODY)
    again = file_versions(source, "interactions")
    put("in/a.csv", BODY.replace(b"3", b"4"))
    assert (first == again, len(first), first == file_versions(source, "interactions")) == (
        True,
        1,
        False,
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://BUCKET/missing.csv", "S3 has no 's3://BUCKET/missing.csv'"),
        ("s3://nowhere/a.csv", "S3 has no 's3://nowhere/a.csv'"),
        ("s3://nowhere/*.csv", "S3 has no 's3://nowhere/"),
        ("s3://BUCKET/none-*.csv", "no object matches"),
        ("s3://Not A Bucket/a.csv", "Not A Bucket/a.csv' cannot be asked"),
    ],
)
def test_what_is_not_there(bucket: str, source: str, message: str) -> None:
    """A missing object, bucket or match is an error that names it."""
    with pytest.raises(InvalidData, match=message.replace("BUCKET", bucket)):
        load(source.replace("BUCKET", bucket))


@pytest.mark.usefixtures("bucket")
def test_s3_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that nobody listens at is a part that is not available."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ArtefactsUnavailable, match="S3 did not answer"):
        load("s3://bucket/a.csv")


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    "endpoint", ["http://minio:s3cr/e@t@127.0.0.1:9", "http://minio:s3cret@no_such host"]
)
def test_endpoint_password_is_never_shown(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Neither of the tables' errors nor of the artefacts'."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises((ArtefactsUnavailable, InvalidData)) as caught:
        load("s3://bucket/a.csv")
    assert "s3cr" not in str(caught.value)
    with (
        pytest.raises(ArtefactsUnavailable, match="does not answer as it should") as caught,
        s3.errors("bucket"),
    ):
        raise EndpointConnectionError(endpoint_url=endpoint)
    assert "s3cr" not in str(caught.value)


@pytest.mark.usefixtures("bucket")
def test_endpoint_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is no address is refused as such."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(InvalidData, match="check it and AWS_ENDPOINT_URL"):
        load("s3://bucket/a.csv")


def test_mapping_on_s3(bucket: str, put: Callable[[str, bytes], None]) -> None:
    """Its paths start where it lies; a prefix is read whole, with its partitions."""
    put("conf/data.toml", b'[interactions]\npaths = ["in", "more/b.csv"]\n')
    put("conf/in/day=1/user_id=x/a.csv", b"item_id,timestamp\n2,3\n")
    put("conf/in/_tmp/a.csv", b"item_id,timestamp\n9,3\n")
    put("conf/in/_SUCCESS", b"")
    put("conf/more/b.csv", BODY)
    mapping = read_mapping(f"s3://{bucket}/conf/data.toml")
    assert load(mapping.interactions).dataset.user_ids == ("1", "x")
    versions = file_versions(mapping.interactions.paths[0], "interactions")
    assert [v.rpartition(" ")[0] for v in versions] == [
        f"s3://{bucket}/conf/in/day=1/user_id=x/a.csv"
    ]
    with pytest.raises(InvalidData, match="no object matches"):
        load(f"s3://{bucket}/conf/empty")


def test_check_of_a_prefix(bucket: str, put: Callable[[str, bytes], None], tmp_path: Path) -> None:
    """Tables on S3 are found out as local ones are, partitions and all."""
    for day in (1, 2, 3):
        rows = "".join(f"u{n};i{n % 3};{day * 100 + n}\n" for n in range(9))
        put(f"shop/orders/day={day}/a.csv", f"customer;sku;time\n{rows}".encode())
    put("shop/goods.csv", b"sku;name\ni0;A\ni1;B\ni2;C\n")
    address = f"s3://{bucket}/shop"
    found = check(
        [f"{address}/orders", address + "/goods.csv"], Given(), lambda *_: None, tmp_path / "r"
    )
    write_mapping(tmp_path / "data.toml", found.mapping)
    mapping = read_mapping(str(tmp_path / "data.toml"))
    assert mapping.interactions.paths == (f"{address}/orders",)
    assert mapping.items is not None
    assert found.tables["interactions"].n_files == 3
    assert found.tables["interactions"].unused == ("day",)
    assert len(load(mapping.interactions, mapping.items).dataset.events) == 27
