"""The board and the answer: with mouse, finger, keyboard or a file, and edges played by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.browser import CheckedPage
from tests.support.simulated_federation import SimulatedFederation

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]
ROOT = Path(__file__).parents[2]


def test_a_drawing_and_a_picture_are_asked_about_and_their_answers_shown(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.usual()
    federation.requests()
    page = opened()
    page.wait_text("#connection-text", "Live")
    page.page.locator("#predict-ask").click()
    page.wait_text("#answer", "Draw something first")
    page.draw((7, 6), (20, 6), (12, 23))
    request = federation.request()
    pixels = json.loads(bytes(request.payload))["pixels"]
    assert len(pixels) == 30
    assert all(len(row) == 30 for row in pixels)
    assert not any(pixels[0] + pixels[-1])
    assert max(map(max, pixels)) == 255
    assert pixels[7][14] > 200  # on the stroke: row 6, column 13
    assert request.response_topic is not None
    assert request.response_topic.startswith(f"{federation.prefix}/predictions/")
    federation.answer(request)
    page.wait_text("#answer-label", "7")
    rows = page.page.locator("#answer .bars li").all_inner_texts()
    assert [row.split() for row in rows] == [["1", "25.0", "%"], ["7", "75.0", "%"]]
    page.wait_text("#answer", "edge 7, version 2")
    widths = page.page.locator("#answer .fill").evaluate_all("bars => bars.map(bar => bar.style.inlineSize)")
    assert widths == ["25%", "75%"]

    page.page.locator("#predict-file").set_input_files(ROOT / "examples" / "seven.png")
    request = federation.request()
    assert bytes(request.payload) == (ROOT / "examples" / "seven.png").read_bytes()
    federation.answer(request, label="8")
    page.wait_text("#answer-label", "8")


def test_drawing_with_the_keyboard_and_no_answer(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened(clock=True)
    page.wait_connected()
    page.pause_clock()
    page.page.locator("#sketch").focus()
    page.page.keyboard.press("Space")
    for _ in range(12):
        page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    page.page.clock.run_for(600)
    page.wait_text("#answer", "Asking")
    page.page.clock.fast_forward(14_000)
    page.wait_text("#answer", "Asking")
    page.page.clock.fast_forward(1_100)
    page.wait_text("#answer .problem", "No edge answered within 15 s")
    page.page.keyboard.press("Delete")
    assert page.page.locator("#sketch-hint").is_visible()


@pytest.mark.long
def test_a_finger_draws(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened(has_touch=True, viewport={"width": 360, "height": 740})
    page.wait_text("#connection-text", "Live")
    page.page.locator("#sketch").tap()
    assert page.page.locator("#sketch-hint").is_hidden()
