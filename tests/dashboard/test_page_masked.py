"""The page shows what the aggregator sees of updates: each one, or in a masked run only sums."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.browser import CheckedPage
from tests.support.simulated_federation import SimulatedFederation, edge

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]

NO_NUMBERS = (
    "Updates are masked: nobody sees how many examples a single edge has, nor its losses and metrics."
)
SUMS = {"least": 5, "certified": True}
STAGES = "#stages li:not([hidden])"
HEAD = "#edges-table th[data-column]:not([hidden])"


def test_a_plain_run_shows_that_each_update_is_seen(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened()
    page.wait_text("#f-seen", "Each update")
    assert page.page.locator(STAGES).all_inner_texts() == ["Select", "Collect", "Average", "Evaluate"]
    page.page.locator("#edges-as-table").click()
    assert page.page.locator(HEAD).all_inner_texts() == [
        "Edge", "State", "accuracy", "Loss", "Examples", "Training", "Update"
    ]  # fmt: skip


def test_a_masked_run_shows_sums_and_no_numbers_of_single_edges(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.usual()
    federation.status(masked=SUMS)
    federation.edges({"1": edge("in"), "2": edge("training"), "3": edge("present")})
    federation.result(2, masked=True)
    page = opened()
    page.wait_text("#f-seen", "Sums only")
    assert page.text("#f-seen-more") == "of at least 5 updates"
    page.wait_text("#events", "Round 2: version 2 from the sum of 2 masked updates in 2.5 s")
    assert page.page.locator(STAGES).all_inner_texts() == [
        "Select",
        "Collect",
        "Agree",
        "Unmask",
        "Average",
        "Evaluate",
    ]
    assert page.text("#f-updates-name") == "Updates in"
    page.page.locator("#edge-1").click()
    page.wait_text("#edges-detail", NO_NUMBERS)
    assert "Examples" not in page.text("#edges-detail")
    page.page.locator("#edges-as-table").click()
    page.wait_text("#edges-note", NO_NUMBERS)
    assert page.page.locator(HEAD).all_inner_texts() == ["Edge", "State"]
    assert page.page.locator("#edges-table tbody tr").first.inner_text().split() == ["1", "in"]

    federation.status(masked=SUMS, phase="agreeing", have=3, need=4, seconds_left=50.0, missing=["2"])
    page.wait_text("#f-updates-name", "Signatures")
    assert page.text("#f-updates") == "3 of 4"
    assert page.page.locator("#stages [aria-current=step]").inner_text() == "Agree"
    assert page.text("#f-left-more").startswith("this phase ≤ ")
    federation.status(masked=SUMS, phase="unmasking", have=1, need=4, seconds_left=50.0)
    page.wait_text("#f-updates-name", "Shares")
    assert page.text("#f-updates") == "1 of 4"


def test_without_kits_it_says_that_keys_are_not_certified(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.usual()
    federation.status(masked=SUMS | {"certified": False})
    page = opened()
    page.wait_text("#f-seen-more", "keys not certified: no kits")
    federation.status(masked={"least": "5", "certified": False}, version=7)  # junk
    federation.status(masked=SUMS, version=4)
    page.wait_text("#overview-title", "Version 5 of 10")
    assert page.text("#f-seen-more") == "of at least 5 updates"
