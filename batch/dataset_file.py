"""Keeps a validated data set on disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.catalogue import (
    AttributeVocabulary,
    Catalogue,
    Dataset,
    ItemAttribute,
    ItemContent,
    LabelColumn,
)
from shortlist.recsys.models.interactions import Events, Negatives

# Arrays in one file and texts in another: without pickle, npz holds no lists of strings.
ARRAYS = "dataset.npz"
TEXTS = "dataset.msgpack"


def save(directory: Path, dataset: Dataset) -> None:
    """Writes `dataset` into `directory`."""
    events, catalogue = dataset.events, dataset.catalogue
    negatives = events.negatives
    labels: dict[str, Any] = {
        f"labels_{i}": c.rows for i, c in enumerate(catalogue.content.columns)
    }
    np.savez(
        directory / ARRAYS,
        user=events.user,
        item=events.item,
        time=events.time,
        weight=events.weight,
        kind=events.kind,
        cancelled=events.cancelled,
        negative_user=negatives.user,
        negative_item=negatives.item,
        negative_time=negatives.time,
        negative_until=negatives.until,
        attributes=dataset.attributes,
        membership=catalogue.membership,
        year=catalogue.year,
        numbers=catalogue.content.numbers,
        vectors=catalogue.content.vectors,
        **labels,
    )
    texts = {
        "ids": catalogue.ids,
        "titles": catalogue.titles,
        "categories": catalogue.categories,
        "category_names": catalogue.category_names,
        "user_ids": dataset.user_ids,
        "kinds": events.kinds,
        "vocabulary": asdict(dataset.vocabulary),
        "fingerprint": dataset.fingerprint,
        "item_attributes": [a.as_plain() for a in catalogue.attributes],
        "label_columns": [[c.name, c.labels] for c in catalogue.content.columns],
        "number_names": catalogue.content.number_names,
    }
    (directory / TEXTS).write_bytes(msgpack.packb(texts))


def size(directory: Path) -> int:
    """Bytes of what `save` wrote."""
    return sum((directory / name).stat().st_size for name in (ARRAYS, TEXTS))


def load(directory: Path) -> Dataset:
    """Reads what `save` wrote."""
    texts = msgpack.unpackb((directory / TEXTS).read_bytes(), use_list=False)
    with np.load(directory / ARRAYS, allow_pickle=False) as a:
        events = Events(
            a["user"],
            a["item"],
            a["time"],
            a["weight"],
            len(texts["user_ids"]),
            len(texts["ids"]),
            a["kind"],
            a["cancelled"],
            Negatives(*(a[f"negative_{name}"] for name in ("user", "item", "time", "until"))),
            tuple(EventKind(*kind) for kind in texts["kinds"]),
        )
        catalogue = Catalogue(
            texts["ids"],
            texts["titles"],
            texts["categories"],
            texts["category_names"],
            a["membership"],
            a["year"],
            tuple(map(ItemAttribute.from_plain, texts["item_attributes"])),
            ItemContent(
                tuple(
                    LabelColumn(name, labels, a[f"labels_{i}"])
                    for i, (name, labels) in enumerate(texts["label_columns"])
                ),
                texts["number_names"],
                a["numbers"],
                a["vectors"],
            ),
        )
        attributes = a["attributes"]
    return Dataset(
        events,
        catalogue,
        texts["user_ids"],
        attributes,
        AttributeVocabulary(**texts["vocabulary"]),
        texts["fingerprint"],
    )
