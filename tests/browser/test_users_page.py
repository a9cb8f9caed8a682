"""Tests the studio's Users page in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect


@pytest.fixture
def users(page: Page) -> Page:
    """The page with the heaviest user chosen."""
    page.goto("/#/users")
    expect(page.get_by_role("heading", name=re.compile("^User "))).to_be_visible()
    expect(page.locator(".list .ranked > li")).to_have_count(10)
    return page


def test_first_user_is_shown(users) -> None:
    """The page opens with history, list, source and age of the heaviest user."""
    expect(users.locator(".picker a[aria-current]")).to_have_count(1)
    expect(users.locator(".list")).to_contain_text("source: batch")
