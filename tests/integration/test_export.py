"""Tests a shop's export from files to answers over HTTP, and a second night.

The export has semicolons, its own column names and dates, returns, brands and prices. No file is
converted by hand: `data check` writes the mapping, and the batch takes it.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from shortlist.batch.cli import main
from shortlist.recsys.data.worlds.shop import Shop, ShopSize, shop
from tests.servers import SMALL, as_process
from tests.smallest import smallest_config

SIZE = ShopSize(n_users=80, n_items=60, events_per_user=30, returns=0.2)


@pytest.fixture(scope="module")
def world() -> Shop:
    """A small shop."""
    return shop(SIZE)


def write_orders(events: pl.DataFrame, path: Path) -> None:
    """Orders as a shop exports them."""
    names = {"user_id": "CustomerNo", "item_id": "SKU", "timestamp": "Date", "event_type": "Action"}
    times = pl.from_epoch("timestamp").dt.strftime("%d.%m.%Y %H:%M:%S")
    events.with_columns(times).rename(names).write_csv(path, separator=";")


def call(line: str, environ: dict[str, str]) -> str:
    """What a command printed."""
    done = CliRunner().invoke(main, line.split(), env=environ)
    assert done.exit_code == 0, done.output
    return done.output


def asked(port: int, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request for recommendations."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/recommend",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - likewise
        return dict(json.load(answer))


def test_an_export_becomes_answers(world, valkey_url, namespace, tmp_path, monkeypatch) -> None:
    """Check, batch, serve; then new orders and returns, and the same again."""
    monkeypatch.chdir(tmp_path)
    environ = SMALL | {
        "SHORTLIST_REPEATS": "allow",
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
        "SHORTLIST_BUNDLE_DIR": str(tmp_path),
    }
    late = world.interactions["timestamp"].quantile(0.9)
    write_orders(world.interactions.filter(pl.col("timestamp") < late), Path("orders.csv"))
    products = world.items.with_columns(pl.col("categories").list.join("|"))
    names = {"item_id": "SKU", "title": "Name", "categories": "Department"}
    products.rename(names).write_csv("products.csv", separator=";")

    printed = call("data check orders.csv products.csv --write data.toml", environ)
    assert "written to data.toml" in printed
    learn = f"batch run --data data.toml --config {smallest_config(tmp_path)}"
    printed = call(learn, environ)
    assert "is serving" in printed
    assert printed.splitlines()[-1].startswith("next: `shortlist studio`")
    purchases = world.interactions.filter(event_type="purchase")
    user = purchases["user_id"].mode().sort()[0]
    brand = world.items["brand"].mode().sort()[0]
    with as_process(environ) as (_, port):
        plain = asked(port, {"user_id": user, "k": 5})
        assert plain["source"] == "batch"
        shown = plain["recommendations"][0]["attributes"]
        assert {"brand", "price", "in_stock"} <= set(shown)
        where = {"brand": [brand], "in_stock": True}
        for one in asked(port, {"user_id": user, "k": 3, "where": where})["recommendations"]:
            assert (one["attributes"]["brand"], one["attributes"]["in_stock"]) == (brand, True)

    # Everything that the user bought last night came back.
    bought = purchases.filter(user_id=user)["item_id"].unique()
    returned = pl.DataFrame({"user_id": user, "item_id": bought})
    last = world.interactions["timestamp"].max()
    assert isinstance(last, int)
    returned = returned.with_columns(
        pl.lit(last + 86_400, pl.Int64).alias("timestamp"), pl.lit("return").alias("event_type")
    )
    write_orders(pl.concat([world.interactions, returned]), Path("orders.csv"))
    call(learn, environ)
    with as_process(environ) as (_, port):
        second = asked(port, {"user_id": user, "k": 20})
        assert second["source"] == "batch"
        assert second["model_version"] != plain["model_version"]
        assert not {one["item_id"] for one in second["recommendations"]} & set(bought)
