"""Tests the studio's Quality page in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect


@pytest.fixture
def quality(page: Page) -> Page:
    """The page with all its sections."""
    page.goto("/#/quality")
    expect(page.get_by_role("region", name="The finding")).to_be_visible()
    return page


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def choose(part: Locator, name: str) -> None:
    """Chooses one of a row of choices by its label."""
    part.locator("label").get_by_text(name, exact=True).click()


def rows_of(part: Locator) -> Locator:
    """The rows of the last chart's table, which is opened for it."""
    figure = part.locator("figure").last
    figure.get_by_text("Show as table").click()
    rows = figure.locator("tbody tr")
    expect(rows.first).to_be_visible()
    return rows


def column(rows: Locator, number: int) -> list[str]:
    return [text.strip() for text in rows.locator(f"td:nth-child({number})").all_inner_texts()]


def numbers(texts: list[str]) -> list[float]:
    return [
        float(text.rstrip("%").replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in texts
    ]


def test_finding_is_a_sentence(quality) -> None:
    """The headline with its interval, the strongest baseline, and whether chance explains it."""
    finding = section(quality, "The finding")
    expect(finding).to_contain_text(re.compile(r" is 0\.\d{3} \(95% interval 0\.\d{3} to"))
    expect(finding).to_contain_text(
        re.compile("The difference, user by user, is [+\N{MINUS SIGN}]")
    )
    finding.get_by_role("button", name="NDCG@10").focus()
    expect(finding.get_by_role("tooltip")).to_be_visible()


def test_methods_by_metric(quality) -> None:
    """Each metric sorts the methods by its own figures."""
    methods = section(quality, "Methods")
    by_ndcg = column(rows_of(methods), 1)
    assert {"two_stage", "retriever", "popularity"} <= {name.split("\n")[0] for name in by_ndcg}
    choose(methods, "Coverage")
    expect(methods.locator("figcaption")).to_contain_text("Coverage of each method")
    rows = rows_of(methods)
    values = numbers(column(rows, 2))
    assert values == sorted(values, reverse=True)
    assert column(rows, 1) != by_ndcg


def test_new_and_repeated_items_apart(quality) -> None:
    """Methods and pairs are shown for what is new to the user, or what they had."""
    for name in ("Methods", "Paired tests"):
        part = section(quality, name)
        before = column(rows_of(part), 2)
        choose(part, "Had before")
        assert column(rows_of(part), 2) != before


def test_pairs_are_antisymmetric(quality) -> None:
    """One minus the other is the negative of the other minus the one."""
    pairs = section(quality, "Paired tests")

    def differences(of: str) -> dict[str, float]:
        pairs.get_by_label("Compare").select_option(of)
        expect(pairs.locator("figcaption")).to_contain_text(f"{of} minus each other method")
        rows = rows_of(pairs)
        names = [name.split("\n")[0] for name in column(rows, 1)]
        return dict(zip(names, numbers(column(rows, 2)), strict=True))

    ours = differences("two_stage")
    theirs = differences("popularity")
    assert ours["popularity"] == pytest.approx(-theirs["two_stage"])
    words = {"better", "worse", "cannot be told apart"}
    assert set(column(pairs.locator("tbody tr"), 5)) <= words


def test_trade_off_has_three_axes(quality) -> None:
    """Accuracy stands against coverage, novelty or diversity."""
    part = section(quality, "Accuracy against coverage and novelty")
    seen = set()
    for name in ("Coverage", "Novelty@10", "Diversity@10"):
        choose(part, name)
        expect(part.locator("figcaption")).to_contain_text(f"against {name.lower()}")
        seen.add(tuple(column(rows_of(part), 3)))
    assert len(seen) == 3


def test_sources_add_up(quality) -> None:
    """More places find more, and the sources add up to what is found."""
    rows = rows_of(section(quality, "Recall by source"))
    together = numbers(column(rows, rows.first.locator("td").count()))
    assert together == sorted(together)
    for row in rows.all():
        *parts, whole = numbers([text.strip() for text in row.locator("td").all_inner_texts()[1:]])
        assert sum(parts) == pytest.approx(whole, abs=0.3)


def test_segments_by_kind_and_method(quality) -> None:
    """Users by history, users by category, items by popularity; methods come and go."""
    part = section(quality, "By segment")
    for kind in ("history length", "favourite category", "popularity of the item"):
        choose(part, kind)
        expect(part.locator("figcaption")).to_contain_text(
            "held-out item" if kind.startswith("popularity") else kind
        )
    choose(part, "item_knn")
    assert "item_knn" in column(rows_of(part), 3)
    chosen = part.get_by_role("checkbox", checked=True)
    while chosen.count():
        chosen.first.press("Space")
    expect(part).to_contain_text("No method is chosen.")


def test_calibration_by_place_and_score(quality) -> None:
    """The first place is worth more than the twentieth, and so is the highest score."""
    part = section(quality, "Calibration")
    rows = rows_of(part)
    shares = numbers(column(rows, 4))
    assert len(shares) == 20
    assert shares[0] > shares[-1]
    choose(part, "score")
    expect(part.locator("figcaption")).to_contain_text("by their score in tenths")
    shares = numbers(column(rows_of(part), 5))
    assert shares[-1] > shares[0]


def test_fresh_users_have_a_curve(quality) -> None:
    """A point for each number of known events, for us and for popularity."""
    rows = rows_of(section(quality, "Fresh users"))
    assert column(rows, 2) == ["1", "2", "3", "5", "10"] * 2
    assert column(rows, 1) == ["two_stage"] * 5 + ["popularity"] * 5


def test_learning_curves_of_both_stages(quality) -> None:
    """The towers by round with their loss, the ranker by tree."""
    part = section(quality, "Learning curves")
    expect(part.locator("figcaption")).to_have_count(2)
    choose(part, "ranker")
    expect(part.locator("figcaption")).to_contain_text("by tree")


def test_features_are_explained(quality) -> None:
    """The list of features says what each of them is."""
    part = section(quality, "Features of the ranker")
    assert sum(numbers(column(rows_of(part), 2))) == pytest.approx(100, abs=3)
    part.get_by_text("What the features are").click()
    expect(part.locator(".glossary dt").first).to_be_visible()


def test_releases_carry_the_gates_word(quality, shop_world) -> None:
    """The newest release is first, marked as serving, with what the gate said."""
    rows = section(quality, "Releases over time").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text(shop_world.serving)
    expect(rows.nth(0)).to_contain_text("serving")
    expect(rows.nth(0).locator(".gate")).to_contain_text("the gate is off")
    expect(rows.nth(1)).to_contain_text(shop_world.earlier)
    expect(rows.nth(1).locator("td").nth(4)).to_have_text("240")  # all users, not the measured


def test_audit_is_shown(quality) -> None:
    """Each check of the leak audit has its outcome."""
    outcomes = section(quality, "Leak audit").locator("tbody td:nth-child(2)")
    assert set(outcomes.all_inner_texts()) == {"held"}
