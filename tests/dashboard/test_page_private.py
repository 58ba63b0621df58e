"""The page shows what a private run has spent: ε beside its budget, as text, as a bar and as a curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.browser import CheckedPage
from tests.support.simulated_federation import SimulatedFederation

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]

SPENT: dict[str, Any] = {
    "epsilon": 1.2345,
    "delta": 1e-5,
    "budget": 2.0,
    "against": "wire",
    "insecure": False,
}
CURVE = '[data-curve="epsilon"]'


def test_a_private_run_shows_epsilon_beside_its_budget(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    federation.status(privacy=SPENT)
    federation.history([0.25, None, 0.75], epsilon=[0.8, None, 1.2345])
    page = opened()
    page.wait_text("#f-privacy", "1.23 of 2")
    assert page.text("#f-privacy-more").split("\n") == [
        "at δ = 1e-5,",
        "to who sees models and who took part",
    ]
    bar = page.page.locator("#f-privacy-bar")
    assert bar.evaluate("one => one.value") == pytest.approx(1.2345 / 2)
    assert page.page.get_by_role("progressbar", name="Privacy spent").count() == 1
    page.wait_text(f"{CURVE} .readout", "round 3: ε 1.23 · dashed: budget 2")
    plot = page.page.locator(f"{CURVE} .plot")
    assert (plot.get_attribute("aria-label") or "").startswith("epsilon over 3 rounds: from 0.8 to 1.23.")
    plot.focus()
    page.page.keyboard.press("Home")
    page.wait_text(f"{CURVE} .readout", "round 1: ε 0.8 · dashed: budget 2")
    page.page.locator(f"{CURVE} summary").click()
    assert page.page.locator(f"{CURVE} tbody tr").first.inner_text().split()[:4] == ["3", "2", "1.23", "2"]


def test_without_a_budget_there_is_no_bar_and_a_known_seed_is_said(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.usual()
    federation.status(privacy=SPENT | {"budget": None, "against": "models", "insecure": True})
    page = opened()
    page.wait_text("#f-privacy", "1.23")
    assert page.text("#f-privacy-more").startswith("noise from a known seed: not private")
    assert not page.page.locator("#f-privacy-bar").is_visible()
    federation.status()
    page.wait("document.querySelector('#f-privacy-box').hidden")
    assert not page.page.locator(CURVE).is_visible(), "the history says nothing of it"
