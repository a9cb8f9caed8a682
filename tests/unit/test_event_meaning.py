"""Tests what a load makes of event types, returns and dislikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shortlist.batch import dataset_file
from shortlist.recsys.data.loading import Loaded, load
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.event_rules import EventKind, EventRules
from shortlist.recsys.models.interactions import NEVER

SHOP = EventRules({"view": 1, "purchase": 4}, negative=("return",))
ROWS = [
    ("ann", "pan", 10, "view"),
    ("ann", "pan", 20, "purchase"),
    ("ann", "pan", 30, "return"),
    ("ann", "rake", 40, "view"),
    ("bob", "pan", 15, "purchase"),
    ("bob", "pan", 25, "purchase"),
    ("cid", "rake", 5, "return"),
]
TAKE = "of the others they take back"
KEEP = "and they keep their items from those users"


def written(directory: Path, rows: list[tuple[Any, ...]], last: str = "event_type") -> str:
    """A table of interactions whose fourth column is `last`."""
    path = directory / "interactions.parquet"
    schema = ["user_id", "item_id", "timestamp", last]
    pl.DataFrame(rows, schema=schema, orient="row", strict=False).write_parquet(path)
    return str(path)


def positives(loaded: Loaded) -> list[tuple[str, str, int, str, int]]:
    """User, item, time, type and the time of being taken back of each positive event."""
    data, events = loaded.dataset, loaded.dataset.events
    columns = (events.user, events.item, events.time, events.kind, events.cancelled)
    return [
        (data.user_ids[user], data.catalogue.ids[item], time, events.kinds[kind].name, cancelled)
        for user, item, time, kind, cancelled in zip(*(c.tolist() for c in columns), strict=True)
    ]


def negatives(loaded: Loaded) -> list[tuple[str, str, int]]:
    """User, item and time of each piece of negative feedback."""
    data, feedback = loaded.dataset, loaded.dataset.events.negatives
    columns = (feedback.user, feedback.item, feedback.time)
    return [
        (data.user_ids[user], data.catalogue.ids[item], time)
        for user, item, time in zip(*(c.tolist() for c in columns), strict=True)
    ]


def test_types_become_kinds_and_returns(tmp_path: Path) -> None:
    """Types have strengths, the heaviest is predicted, and a return takes its purchase back."""
    loaded = load(written(tmp_path, ROWS), event_rules=SHOP)
    assert positives(loaded) == [
        ("ann", "pan", 10, "view", NEVER),
        ("ann", "pan", 20, "purchase", 30),
        ("ann", "rake", 40, "view", NEVER),
        ("bob", "pan", 15, "purchase", NEVER),
        ("bob", "pan", 25, "purchase", NEVER),
    ]
    assert negatives(loaded) == [("ann", "pan", 30), ("cid", "rake", 5)]
    assert loaded.dataset.events.kinds == (
        EventKind("purchase", 1.0, is_target=True),
        EventKind("view", 0.25, is_target=False),
    )
    assert loaded.rejects == {}
    start = "interactions: 2 of 7 events (28.6%) are negative feedback"
    assert list(loaded.notes) == [
        f"{start} (by type 'return': 2): {TAKE} 1, {KEEP}",
        "interactions: 50.0% of 2 events to predict are of an item that the user had",
    ]


@pytest.mark.parametrize(
    ("ratings", "rules", "expected"),
    [
        ([1.0, -1.0, 1.0], None, [False, True, False]),
        ([1.0, -0.0, 1.0], None, [False, False, False]),
        ([4.0, 2.5, 3.0], EventRules(negative_below=3), [False, True, False]),
        ([4.0, None, float("nan")], EventRules(negative_below=3), [False, False, False]),
        (["4", "-2", " "], None, [False, True, False]),
    ],
)
def test_low_ratings_are_negative(
    tmp_path: Path, ratings: list[Any], rules: EventRules | None, expected: list[bool]
) -> None:
    """Thumbs down, negative quantities, and ratings below a bound; what is missing is not low."""
    rows = [("ann", f"i{n}", n, rating) for n, rating in enumerate(ratings)]
    loaded = load(written(tmp_path, rows, "rating"), event_rules=rules)
    negative = {item for _, item, _ in negatives(loaded)}
    assert [f"i{n}" in negative for n in range(3)] == expected
    assert len(positives(loaded)) == 3 - sum(expected)
    assert loaded.rejects == {}


def test_note_on_low_ratings_has_the_rule(tmp_path: Path) -> None:
    """With the share, the bound and what they took back."""
    rows = [("ann", "a", 1, 1.0), ("ann", "a", 2, -1.0), ("ann", "b", 3, 1.0)]
    (note,) = load(written(tmp_path, rows, "rating")).notes
    why = "by a rating or weight below 0: 1"
    start = "interactions: 1 of 3 events (33.3%) are negative feedback"
    assert note == f"{start} ({why}): {TAKE} 1, {KEEP}"


def test_least_rating_leaves_dislikes(tmp_path: Path) -> None:
    """Ratings between the two bounds are neither events nor feedback."""
    rows = [("ann", item, n, n) for n, item in enumerate("abcde", 1)]
    rules = EventRules(negative_below=2)
    loaded = load(written(tmp_path, rows, "rating"), positive_rating=4, event_rules=rules)
    assert [item for _, item, *_ in positives(loaded)] == ["d", "e"]
    assert [item for _, item, _ in negatives(loaded)] == ["a"]
    assert loaded.notes[0] == "interactions: 2 of 4 are rated below 4, and left out"


def test_types_without_weight_are_rejected(tmp_path: Path) -> None:
    """Each with its name, the rule and the remedy; a missing type says what there is."""
    rows = [*ROWS, ("ann", "pan", 50, "wish"), ("ann", "pan", 51, " "), ("ann", "pan", 52, None)]
    rows += [("ann", "pan", 60 + n, f"x{n % 7}") for n in range(14)]
    loaded = load(written(tmp_path, rows), event_rules=SHOP, max_reject_share=1)
    remedy = "give it a weight in the event rules, or list it as negative"
    assert loaded.rejects == {
        f"other event_type without a weight: {remedy}": 5,
        "no event_type: give it one of 'view', 'purchase', 'return'": 2,
        **{f"event_type 'x{n}' has no weight: {remedy}": 2 for n in range(5)},
    }
    assert len(positives(loaded)) == 5


def test_types_without_rules_count_alike(tmp_path: Path) -> None:
    """A note names the types with their counts, and the remedy."""
    loaded = load(written(tmp_path, ROWS[:2] + ROWS[3:6]))
    assert {strength for *_, strength in positives(loaded)} == {NEVER}
    assert loaded.notes[0] == (
        "interactions: there are event types 'purchase' (3), 'view' (2), and they count alike: "
        "`shortlist data check --write` proposes weights, and which type to predict"
    )


@pytest.mark.parametrize(
    ("rows", "rules", "message"),
    [
        ([("ann", "pan", 1, "return")], SHOP, "all 1 events are negative feedback"),
        ([("ann", "pan", 1, "view")], SHOP, r"none of 1 events is of a target type \('purchase'\)"),
        (ROWS[1:3], SHOP, "take back every event to predict of 1"),
    ],
)
def test_nothing_to_predict_is_refused(
    tmp_path: Path, rows: list[tuple[Any, ...]], rules: EventRules, message: str
) -> None:
    """Data whose events are all negative, all of other types, or all taken back, says so."""
    with pytest.raises(InvalidData, match=message):
        load(written(tmp_path, rows), event_rules=rules)


def test_rules_need_a_column_of_types(tmp_path: Path) -> None:
    """Rules on types of a table without any are refused with the remedy."""
    with pytest.raises(InvalidData, match="no column event_type: name its column"):
        load(written(tmp_path, ROWS, "kind"), event_rules=SHOP)


def test_row_order_of_types_is_drawn(tmp_path: Path) -> None:
    """Events that differ in their type alone have one order, whatever that of the rows."""
    rows = [("ann", f"i{n}", 7, name) for n in range(9) for name in ("view", "purchase")]
    orders = [positives(load(written(tmp_path, r), event_rules=SHOP)) for r in (rows, rows[::-1])]
    assert orders[0] == orders[1]
    assert orders[0] != sorted(orders[0])


def test_fingerprint_covers_meaning(tmp_path: Path) -> None:
    """Other types, returns and rules make another data set; the default rules the same one."""
    rows = [*ROWS[:2], *ROWS[4:6]]
    others = [[*rows[:1], ("ann", "pan", 20, "view"), *rows[2:]], [*rows, ROWS[2]]]
    prints = [load(written(tmp_path, some), event_rules=SHOP) for some in (rows, *others)]
    twice = EventRules({"view": 2, "purchase": 4}, negative=("return",))
    prints += [load(written(tmp_path, rows), event_rules=rules) for rules in (twice, None)]
    assert len({loaded.dataset.fingerprint for loaded in prints}) == len(prints)
    again = load(written(tmp_path, rows), event_rules=EventRules())
    assert again.dataset.fingerprint == prints[-1].dataset.fingerprint


def test_data_set_file_keeps_meaning(tmp_path: Path) -> None:
    """What a stage saves, the next one reads: kinds, what was taken back, and feedback."""
    loaded = load(written(tmp_path, ROWS), event_rules=SHOP)
    dataset_file.save(tmp_path, loaded.dataset)
    again = Loaded(dataset_file.load(tmp_path), {}, 0)
    assert positives(again) == positives(loaded)
    assert negatives(again) == negatives(loaded)
    assert again.dataset.events.kinds == loaded.dataset.events.kinds
    assert (
        again.dataset.events.negatives.until.tolist()
        == loaded.dataset.events.negatives.until.tolist()
    )


def drained(directory: Path, rows: list[tuple[Any, ...]]) -> str:
    """A place with one file of drained events: user, item, time, weight and type."""
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    schema |= {"weight": pl.Float64, "event_type": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("event_id")
    frame = frame.with_columns(pl.col("event_id").cast(pl.String))
    (directory / "events").mkdir(exist_ok=True)
    frame.write_parquet(directory / "events" / "events-1-0-2-0.parquet")
    return str(directory / "events")


def test_drained_events_have_types(tmp_path: Path) -> None:
    """What the API took counts by its type; what the table has as well counts once."""
    events = [
        ("ann", "pan", 10, None, "view"),
        ("ann", "pan", 10, None, "purchase"),
        ("bob", "pan", 30, None, "return"),
        ("cid", "pan", 30, -1.0, "purchase"),
        ("cid", "pan", 31, None, None),
    ]
    place = drained(tmp_path, events)
    loaded = load(written(tmp_path, ROWS), events=place, event_rules=SHOP)
    assert sorted(row for row in positives(loaded) if row[1] == "pan") == [
        ("ann", "pan", 10, "purchase", NEVER),
        ("ann", "pan", 10, "view", NEVER),
        ("ann", "pan", 20, "purchase", 30),
        ("bob", "pan", 15, "purchase", NEVER),
        ("bob", "pan", 25, "purchase", 30),
    ]
    assert negatives(loaded)[1:] == [("bob", "pan", 30), ("cid", "rake", 5), ("cid", "pan", 30)]
    assert loaded.rejects == {
        "events: no event_type: give it one of 'view', 'purchase', 'return'": 1
    }


@pytest.mark.parametrize("has_column", [True, False])
def test_untyped_drained_events_match_by_time(tmp_path: Path, *, has_column: bool) -> None:
    """Without a type at either side, the same user, item and second is the same event."""
    events = [("ann", "pan", 10, None, None), ("ann", "pan", 11, None, None)]
    place = drained(tmp_path, events)
    if not has_column:  # as an earlier version wrote it
        path = Path(place) / "events-1-0-2-0.parquet"
        pl.read_parquet(path).drop("event_type").write_parquet(path)
    rows = [("ann", "pan", 10, 1.0), ("ann", "rake", 11, 1.0)]
    loaded = load(written(tmp_path, rows, "rating"), events=place)
    assert sorted(row[:3] for row in positives(loaded)) == [
        ("ann", "pan", 10),
        ("ann", "pan", 11),
        ("ann", "rake", 11),
    ]


@pytest.mark.parametrize("values", [(0, 1, 1), (False, True, True), ("no", "yes", "yes")])
def test_zeros_that_count(tmp_path: Path, values: tuple[Any, ...]) -> None:
    """A rating of 0, or false, counts as positive unless a rule says otherwise: a note says so."""
    path = written(tmp_path, [("ann", f"i{n}", n, v) for n, v in enumerate(values)], "rating")
    note = "interactions: 1 events have a rating or weight of 0, false or no, and count as positive"
    assert any(each.startswith(note) for each in load(path).notes)
    with_rule = load(path, event_rules=EventRules(negative_below=0.5))
    assert not any("count as positive" in each for each in with_rule.notes)
