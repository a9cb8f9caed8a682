"""A validated data set on disk, so that every later stage reads arrays instead of parsing tables again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import msgpack
import numpy as np

from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue, Dataset
from shortlist.recsys.models.interactions import Events


def save(directory: Path, dataset: Dataset) -> None:
    """Writes `dataset` into `directory`."""
    events, catalogue = dataset.events, dataset.catalogue
    np.savez(
        directory / "dataset.npz",
        user=events.user,
        item=events.item,
        time=events.time,
        weight=events.weight,
        attributes=dataset.attributes,
        membership=catalogue.membership,
        year=catalogue.year,
    )
    told = {
        "ids": catalogue.ids,
        "titles": catalogue.titles,
        "categories": catalogue.categories,
        "category_names": catalogue.category_names,
        "user_ids": dataset.user_ids,
        "vocabulary": asdict(dataset.vocabulary),
        "fingerprint": dataset.fingerprint,
    }
    (directory / "dataset.msgpack").write_bytes(msgpack.packb(told))


def load(directory: Path) -> Dataset:
    """Reads what `save` wrote."""
    told = msgpack.unpackb((directory / "dataset.msgpack").read_bytes(), use_list=False)
    with np.load(directory / "dataset.npz", allow_pickle=False) as a:
        events = Events(
            a["user"], a["item"], a["time"], a["weight"], len(told["user_ids"]), len(told["ids"])
        )
        catalogue = Catalogue(
            told["ids"],
            told["titles"],
            told["categories"],
            told["category_names"],
            a["membership"],
            a["year"],
        )
        attributes = a["attributes"]
    return Dataset(
        events,
        catalogue,
        told["user_ids"],
        attributes,
        AttributeVocabulary(**told["vocabulary"]),
        told["fingerprint"],
    )
