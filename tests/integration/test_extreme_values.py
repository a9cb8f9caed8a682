"""Tests a refresh on the most extreme values allowed.

It ends in a release that answers them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
from starlette.testclient import TestClient

from shortlist.batch.drain import drain
from shortlist.batch.job import Job, run
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys import values
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord
from shortlist.recsys.store.redis import open_store
from tests.smallest import smallest

WIDE = "\uff11\uff12\uff13"
NAMES = [
    WIDE,
    "a}b{c",
    "\u2028x",
    "-0",
    "x" * values.MAX_ID_LENGTH,
    "{user}",
    "%s",
    "*",
    "\U0001f600",
    "a:b|c,d;e",
]


def items_at(interactions: pl.DataFrame, row: int) -> str:
    """The item of a row."""
    return str(interactions["item_id"][row])


def test_a_night_with_extremes(published, tables: Path, namespace, reporter, tmp_path) -> None:
    """Odd ids, the largest weights and times are learnt from, published and served."""
    interactions = pl.read_parquet(tables / "interactions.parquet")
    last = int(interactions["timestamp"].max())
    item = items_at(interactions, 0)
    rows = [
        (name, item, last - n, w)
        for name in NAMES
        for n, w in ((2, 0.0), (1, values.MAX_WEIGHT), (0, 1e-45))
    ]
    rows += [("times", item, 0, 1.0), ("times", items_at(interactions, 1), values.MAX_TIME, 1.0)]
    weight = next(c for c in ("weight", "rating") if c in interactions.columns)
    columns = ["user_id", "item_id", "timestamp", weight]
    plain = interactions.select(
        pl.col("user_id", "item_id").cast(pl.String), "timestamp", pl.col(weight).cast(pl.Float64)
    )
    odd = pl.DataFrame(rows, schema=columns, orient="row")
    pl.concat([plain, odd.cast(plain.schema)]).write_parquet(tmp_path / "interactions.parquet")
    items = pl.read_parquet(tables / "items.parquet").with_columns(
        pl.col("item_id").cast(pl.String)
    )
    extra = pl.DataFrame({"item_id": NAMES})
    pl.concat([items, extra], how="diagonal").write_parquet(tmp_path / "items.parquet")
    settings = replace(
        published.settings, namespace=namespace, artefacts=str(tmp_path / "artefacts"), gate=False
    )
    store = open_store(settings.redis_url, namespace, 2000)
    log = EventLog(store)
    log.append(
        [EventRecord(f"e{n}", name, name, last, values.MAX_WEIGHT) for n, name in enumerate(NAMES)]
    )
    events = str(tmp_path / "events")
    assert drain(log, open_event_files(events)).events == len(NAMES)
    paths = (str(tmp_path / "interactions.parquet"), str(tmp_path / "items.parquet"), None)
    params = smallest(settings)
    run(Job(*paths, tmp_path / "work", settings, reporter, config=params, events=events))
    client = TestClient(create_app(settings, store, LivePath(settings)))
    for name in NAMES:
        for use_cache in (True, False):
            answer = client.post(
                "/recommend", json={"user_id": name, "use_cache": use_cache}
            ).json()
            assert answer["source"] in ("batch", "live"), name
            assert len(answer["recommendations"]) == 20
    store.close()
