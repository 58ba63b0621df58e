"""For everybody: names and roles, contrast, keyboard, narrow and wide, light and dark, less motion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.browser import CheckedPage
from tests.support.compared_updates import similarity
from tests.support.simulated_federation import SimulatedFederation, edge

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]

STATES = ("in", "training", "uploading", "selected", "missing", "present", "offline")

WITHOUT_NAME = """() => [...document.querySelectorAll(
    "button, input, a, canvas, img, progress, dialog, section, [role], [tabindex='0']"
  )]
  .filter(one => !one.closest("[aria-hidden=true]") && one.getAttribute("alt") === null)
  .filter(one => {
    const ids = (one.getAttribute("aria-labelledby") ?? "").split(" ");
    const by = ids.map(id => document.getElementById(id)?.textContent ?? "");
    const name = [one.getAttribute("aria-label"), ...by, ...[...(one.labels ?? [])].map(label => label.textContent)];
    if (["BUTTON", "A"].includes(one.tagName)) name.push(one.textContent);
    // A live region's text is its own.
    return !name.join("").trim() && !["status", "alert"].includes(one.getAttribute("role"));
  }).map(one => one.outerHTML.slice(0, 200))"""

FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const linear = value => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map(value => linear(value / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return rgba("Canvas");
  };
  const bad = [];
  const seen = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = seen.nextNode(); node; node = seen.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(".hidden, .skip, script, noscript, .hint")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && Number(style.fontWeight) >= 700);
    const [one, other] = [light(rgba(style.color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < (large ? 3 : 4.5)) {
      bad.push(`${ratio.toFixed(2)} ${element.className || element.tagName}: ${node.data.trim().slice(0, 40)}`);
    }
  }
  return [...new Set(bad)];
}"""


def whole_page(federation: SimulatedFederation, open_page: Open, **context: Any) -> CheckedPage:
    """With something everywhere."""
    federation.birth()
    spent = {"epsilon": 1.25, "delta": 1e-5, "budget": 2.0, "against": "wire", "insecure": True}
    federation.status(paused="no room on the disk", privacy=spent)
    federation.history([0.25, None, 0.75], epsilon=[0.75, None, 1.25], similarity=similarity(6, bad=1))
    why = {"missing": "offline: for 2.0 s", "offline": "its connection is lost"}
    federation.edges({f"site-{one}": edge(one, reason=why.get(one), primary=0.5) for one in STATES})
    federation.result(2, {"9": "offline"})
    federation.result(3)
    federation.requests()
    page = open_page(**context)
    page.wait_text("#overview-title", "Version 3")
    page.wait_text("#f-privacy", "1.25 of 2")
    page.wait_text("#events", "Round 3")
    page.wait('document.querySelectorAll("#edges-grid li").length === 7')
    page.draw((7, 6), (20, 6), (12, 23))
    federation.answer(federation.request(), label="7", probabilities={str(one): 0.1 for one in range(10)})
    page.wait_text("#answer-label", "7")
    page.page.locator("#edge-site-missing").click()
    page.wait_text("#edges-detail", "offline: for 2.0 s")
    return page


def faint(page: CheckedPage) -> dict[str, list[str]]:
    """What stands out too little from its ground, light on dark or dark on light."""
    found, inks = {}, set()
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        inks.add(page.page.evaluate("getComputedStyle(document.body).color"))
        found[scheme] = page.page.evaluate(FAINT)
    assert len(inks) == 2
    page.page.emulate_media(color_scheme="null")
    return {scheme: texts for scheme, texts in found.items() if texts}


def test_names_and_contrast(federation: SimulatedFederation, opened: Open) -> None:
    page = whole_page(federation, opened)
    for summary in page.page.locator("summary").all():
        summary.click()
    page.page.mouse.move(0, 0)
    assert page.page.evaluate(WITHOUT_NAME) == []
    assert faint(page) == {}
    page.page.locator("#edges-as-table").click()
    page.page.locator("#connection").click()
    assert page.page.evaluate(WITHOUT_NAME) == []
    assert faint(page) == {}
    page.page.keyboard.press("Escape")
    # Less motion: none at all.
    running = page.page.evaluate("document.getAnimations().filter(one => one.playState === 'running').length")
    assert running == 0
    # One heading of the first level, sections named by theirs, and the language.
    assert page.page.locator("h1").count() == 1
    assert (
        page.page.locator("section").count()
        == page.page.locator("section > .heading h2, section > .headline h2").count()
    )
    assert page.page.locator("html[lang=en]").count() == 1
    # One edge of all is in the order of Tab.
    assert page.page.locator("#edges-grid [tabindex='0']").count() == 1
    # A state is never told by its colour alone.
    signs = page.page.locator("#edges-grid .sign").evaluate_all(
        "all => all.map(one => getComputedStyle(one, '::before').content)"
    )
    assert len(set(signs)) == len(STATES)


def test_labels_stay_in_their_line_and_cards_have_no_empty_half(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.status(phase="collecting", seconds_left=3599.0)
    federation.edges({"0": edge("in", primary=0.9), "evaluator": edge("present", reason="only evaluates")})
    page = opened(viewport={"width": 1440, "height": 1000})
    page.wait_text("#f-left-more", "this round ≤ 59 min")
    page.wait_text("#edges-grid", "evaluator")
    for width in (1200, 1440, 2000):
        page.page.set_viewport_size({"width": width, "height": 1000})
        page.wait(f"innerWidth === {width}")
        page.wait("document.querySelector('#f-left-more').clientHeight < 26")
        names = "[...document.querySelectorAll('#edges-grid :is(.name, .value)')]"
        page.wait(f"{names}.every(one => one.scrollWidth <= one.clientWidth)")
    card, detail = (page.page.locator(one).bounding_box() for one in (".edges", "#edges-detail"))
    assert card is not None
    assert detail is not None
    assert card["y"] + card["height"] - detail["y"] - detail["height"] < 40


def test_narrow_and_wide_and_all_of_it_by_keyboard(federation: SimulatedFederation, opened: Open) -> None:
    page = whole_page(federation, opened, viewport={"width": 360, "height": 800})
    small = page.page.locator("#sketch, #predict-ask, #sketch-clear, .chip, #connection").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 24).map(one => one.outerHTML)"
    )
    assert small == [], "a finger finds it"
    for width in (360, 800, 1440, 2560):
        page.page.set_viewport_size({"width": width, "height": 800})
        page.wait(f"innerWidth === {width}")
        # Nothing sticks out sideways, once what is drawn has been drawn for this width.
        page.wait("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        board = page.page.locator("#sketch").bounding_box()
        assert board is not None
        assert 200 <= board["width"] <= 480, width
    page.page.set_viewport_size({"width": 1440, "height": 1000})
    reached: list[str] = []
    page.page.locator(".skip").focus()
    page.page.keyboard.press("Tab")
    for _ in range(60):
        what = page.page.evaluate(
            "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
        )
        if what == "BODY":
            break
        reached.append(what)
        page.page.keyboard.press("Tab")
    for wanted in (
        "connection",
        "edges-search",
        "edges-as-grid",
        "edge-site-missing",
        "similarity-map",
        "sketch",
        "predict-ask",
        "predict-file",
        "events-problems",
    ):
        assert wanted in reached, reached
    assert reached.count("plot") == 3
    assert len(reached) < 45
