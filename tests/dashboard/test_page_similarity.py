"""The page shows who is unlike the others (``--similarity``): by name, in groups, and as a map of the cosines."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.browser import CheckedPage
from tests.support.compared_updates import similarity
from tests.support.simulated_federation import SimulatedFederation
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]
SMALL = (
    *("--task", "digits-mlp", "--clients", "6", "--rounds", "2", "--epochs", "5", "--wait", "60"),
    *("--deadline", "60", "--similarity", "1", "--attack", "sign-flip:edges=1+4", "--stay", "--quiet"),
)
EVIL = '"><img src=x onerror="window.pwned=1">'


def painted(page: CheckedPage, row: int, of: int) -> list[str]:
    """What the colours of the cells of a row of the map mean. All are read at once, or the browser warns."""
    found = page.page.evaluate(
        """([row, of]) => {
          const map = document.querySelector("#similarity-map");
          const side = map.height / of;
          const { data } = map.getContext("2d").getImageData(0, (row + 0.2) * side, map.width, 1);
          return Array.from({ length: of }, (_, column) => {
            const at = 4 * Math.floor(map.width - (of - column - 0.2) * side);
            return data[at + 2] > data[at] ? "alike" : "opposite";
          });
        }""",
        [row, of],
    )
    return list(found)


@pytest.mark.usefixtures("light_edges")
def test_attackers_are_apart(chromium: Browser, tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *SMALL) as run:
        wait_until(lambda: "dashboard: " in run.out, 30, "the page's address")
        address = re.search(r"^dashboard: (\S+)$", run.out, re.MULTILINE)
        assert address is not None, run.output
        page = CheckedPage(chromium)
        page.page.goto(address.group(1))
        page.wait_text("#overview-title", "Finished: 2 of 2 versions", 90_000)
        page.wait_text("#similarity-readout", "round 2: 6 edges")
        unlike = page.page.locator("#similarity-outliers li").all_inner_texts()
        assert [re.match(r"⚠ Edge (\d): cosine ", line) is not None for line in unlike] == [True] * 2, unlike
        groups = page.page.locator("#similarity-groups li").all_inner_texts()
        assert "⚠ 1, ⚠ 4 (2 edges" in groups[1], groups
        # They are the last two rows: alike with each other, the opposite of the others.
        assert painted(page, 4, 6) == ["opposite"] * 4 + ["alike"] * 2
        page.page.locator("#similarity-map").focus()
        for key in ("ArrowRight", *["ArrowRight"] * 4):
            page.page.keyboard.press(key)
        assert re.fullmatch(
            r"0 and 1: cosine −0\.\d\d \(group 1, group 2\)", page.text("#similarity-readout")
        )
        page.page.locator("#similarity-details summary").click()
        page.page.locator("#similarity-details tbody tr").nth(5).wait_for()
        rows = [
            row.split("\t") for row in page.page.locator("#similarity-details tbody tr").all_inner_texts()
        ]
        assert [row[:2] for row in rows[4:]] == [["1", "group 2"], ["4", "group 2"]]
        assert [row[2].split()[0] for row in rows[4:]] == ["4", "1"], "each is nearest to the other"
        page.close()
        run.send(signal.SIGINT)
        assert run.wait(30) == 0, run.output


def test_a_hundred_edges_fit_a_telephone(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened(viewport={"width": 390, "height": 844})
    page.wait_text("[data-curve=metric] .readout", "round 2")
    assert page.page.locator("#similarity").is_hidden(), "nothing was compared"
    federation.history([0.25, 0.75], similarity=similarity(100, bad=10))
    page.wait_text("#similarity-readout", "round 2: 100 edges")
    assert painted(page, 0, 100) == ["alike"] * 90 + ["opposite"] * 10
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.page.locator("#similarity-map").bounding_box()
    assert box is not None
    assert 200 < box["width"] <= 390
    page.page.locator("#edge-3").wait_for()  # from now on nothing moves the map
    page.page.locator("#similarity-map").hover(position={"x": box["width"] - 2, "y": 1})
    page.wait_text("#similarity-readout", "edge-10 and edge-9: cosine −0.")


def test_of_more_edges_only_the_outliers_are_known(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    federation.history([0.25, 0.75], similarity=similarity(101, bad=5))
    page = opened()
    page.wait_text("#similarity-readout", "round 2: more than 100 edges, too many for a map")
    assert page.page.locator("#similarity-outliers li").count() == 5
    assert page.page.locator("#similarity-map").is_hidden()


def test_what_strangers_say_is_text_and_junk_is_ignored(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.usual()
    federation.history(
        [0.25, 0.75], similarity=similarity(4) | {"outliers": {"edge-1": EVIL, "__proto__": EVIL}}
    )
    page = opened()
    page.wait_text("#similarity-outliers", f"Edge edge-1: {EVIL}")
    page.page.locator("#similarity-details summary").click()
    page.wait_text("#similarity-details table", EVIL)
    for wrong in (
        {"edges": ["edge-0"] * 4},
        {"edges": ["edge-0", "edge-1", "edge-2", "<b>"]},
        {"edges": [f"edge-{number}" for number in range(101)]},
        {"groups": [3, 2]},
        {"groups": [4, 0]},
        {"cosines": "AAAAAAA"},
        {"cosines": "AAAAAAAAA"},
        {"cosines": "f39_f39_"},
        {"cosines": "A" * 10_000},
        {"outliers": {"<b>": "x"}},
    ):
        federation.history([0.5, 0.125], similarity=similarity(4) | wrong)
    federation.status(metrics={"accuracy": 0.625})
    page.wait_text("#f-primary", "62.5 %")
    page.wait_text("[data-curve=metric] .readout", "75.0 %")
    assert page.page.evaluate("window.pwned === undefined")
    assert page.page.locator("img:not(.brand img)").count() == 0
