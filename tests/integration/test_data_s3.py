"""Reading from S3 over real HTTP: one object, a glob, and errors that name what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from recsys.data import load
from recsys.errors import ArtefactsUnavailable, InvalidData

BODY = b"user_id,item_id,timestamp\n1,2,3\n"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "eu-west-1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3")
    client.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield client
    for entry in client.list_objects_v2(Bucket="data").get("Contents", []):
        client.delete_object(Bucket="data", Key=entry["Key"])
    client.delete_bucket(Bucket="data")
    client.close()


def test_one_object(s3: Any) -> None:
    """An s3:// address is read like a path, and rejected rows are told by their address."""
    s3.put_object(Bucket="data", Key="in/a.csv", Body=BODY)
    assert load("s3://data/in/a.csv").dataset.user_ids == ("1",)


def test_glob(s3: Any) -> None:
    """A glob reads its objects in the order of their keys; a star does not cross a slash, markers are passed over."""
    for key, item in (("in/b.csv", "8"), ("in/a.csv", "9"), ("in/deep/c.csv", "7"), ("in/_SUCCESS.csv", "6")):
        s3.put_object(Bucket="data", Key=key, Body=f"user_id,item_id,timestamp\n1,{item},0\n".encode())
    data = load("s3://data/in/*.csv").dataset
    assert [data.catalogue.ids[i] for i in data.events.item] == ["9", "8"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://data/missing.csv", "S3 has no 's3://data/missing.csv'"),
        ("s3://nowhere/a.csv", "S3 has no 's3://nowhere/a.csv'"),
        ("s3://nowhere/*.csv", "S3 has no 's3://nowhere/"),
        ("s3://data/none-*.csv", "no object matches"),
        ("s3://Not A Bucket/a.csv", "Not A Bucket/a.csv' cannot be asked"),
    ],
)
def test_what_is_not_there(s3: Any, source: str, message: str) -> None:
    """A missing object, bucket or match is an error that names it."""
    with pytest.raises(InvalidData, match=message):
        load(source)


def test_s3_does_not_answer(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that nobody listens at is a part that is not available."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ArtefactsUnavailable, match="S3 did not answer"):
        load("s3://data/a.csv")


def test_endpoint_is_no_address(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is no address is told as such."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(InvalidData, match="check it and AWS_ENDPOINT_URL"):
        load("s3://data/a.csv")
