"""The page, told by hand what a federation would say: all states, strangers' strings, silence, a thousand edges."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import CheckedPage
from tests.support.simulated_federation import RUN, SimulatedFederation, edge

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.broker
Open = Callable[..., CheckedPage]
EVIL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'


def test_what_is_retained_is_shown_to_who_comes_late(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    federation.result(2, {"9": "offline: for 2.0 s"})
    page = opened()
    page.wait_text("#overview-title", "Version 3 of 10")
    page.wait_text("#which", f"digits · run {RUN}")
    page.wait_text("[data-curve=metric] .readout", "round 2: accuracy 75.0 % (test)")
    page.wait_text("#edges-grid", "2")
    assert page.text("#f-primary") == "75.0 %"
    assert page.text("#f-updates") == "1 of 2"
    assert page.text("#f-bytes") == "3.0 kB"
    assert page.page.locator("#stages [aria-current=step]").inner_text() == "Collect"
    page.wait_text(
        "#events",
        "Round 2: version 2 from 2 updates in 2.5 s, accuracy 50.0 % (test); missing: 9 (offline: for 2.0 s)",
    )
    page.wait_text(
        "#edges-detail",
        "The accuracy of an edge is that of its own model on its own holdout, often a few examples.",
    )
    assert page.page.locator("#strip [data-kind=done]").count() == 2
    assert page.page.locator("#banner").is_hidden()
    assert page.text("#connection-text") == "Live"


def test_what_changes_moves(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened()
    page.wait_text("[data-curve=metric] .readout", "round 2")
    federation.history([0.25, 0.75, None, 0.875])
    federation.status(phase="evaluating", round=5, version=3, metrics={"accuracy": 0.875})
    page.wait_text("[data-curve=metric] .readout", "round 4: accuracy 87.5 % (test)")
    page.wait_text("#f-primary", "87.5 %")
    assert page.page.locator("#strip [data-kind=abandoned]").count() == 1
    page.page.locator("[data-curve=metric] summary").click()
    page.page.locator("[data-curve=metric] tbody tr").first.wait_for()  # filled when it has opened
    rows = page.page.locator("[data-curve=metric] tbody tr").all_inner_texts()
    assert [row.split("\t")[:3] for row in rows] == [
        ["4", "3", "87.5 %"], ["3", "abandoned", "–"], ["2", "2", "75.0 %"], ["1", "1", "25.0 %"],
    ]  # fmt: skip
    # The values of a round, as one points at it or goes there with the keyboard.
    page.page.locator("[data-curve=metric] .plot").focus()
    page.page.keyboard.press("Home")
    page.wait_text("[data-curve=metric] .readout", "round 1: accuracy 25.0 % (test)")
    page.page.locator("[data-curve=loss] .u-over").hover(position={"x": 2, "y": 20})
    page.wait_text("[data-curve=loss] .readout", "round 1: loss 0.750")


def test_an_edge_turns_missing_with_its_reason(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened()
    page.page.locator("#edge-2").click()
    page.wait_text("#edges-detail", "Is training on its own data")
    federation.edges(
        {"1": edge("in"), "2": edge("missing", reason="offline: for 4.0 s"), "3": edge("present")}
    )
    page.wait('document.querySelector("#edge-2").dataset.state === "missing"')
    page.wait_text("#edges-detail", "offline: for 4.0 s")
    page.wait_text("#events", "Round 3: edge 2 is missing: offline: for 4.0 s")
    assert page.page.locator("#edge-2").get_attribute("aria-label") == "edge 2: missing (offline: for 4.0 s)"
    # Those of an earlier round say nothing any more.
    federation.edges({"2": edge("training")}, number=2)
    federation.edges({"1": edge("in"), "2": edge("present")}, number=4)
    page.wait('document.querySelector("#edge-2").dataset.state === "present"')


def test_an_edge_that_does_not_take_part_says_why(federation: SimulatedFederation, opened: Open) -> None:
    """On its tile, when it is chosen, and in the table. It is connected, so it counts as present."""
    federation.birth()
    federation.status(phase="selecting", round=0, version=None, have=1)
    why = "does not take part: no task 'digits' here; it has: mnist"
    federation.edges({"1": edge("present"), "2": edge("present", reason=why)}, number=0, phase="selecting")
    page = opened()
    page.page.locator("#edge-2").click()
    page.wait_text("#edges-detail", f"Edge 2 {why}")
    assert page.page.locator("#edge-2").get_attribute("aria-label") == f"edge 2: present ({why})"
    assert page.text(".chip[data-state=present] b") == "2"
    page.page.locator("#edges-as-table").click()
    rows = page.page.locator("#edges-table tbody tr").all_inner_texts()
    assert [why in row for row in rows] == [False, True], rows


def test_presence_speaks_while_the_aggregator_is_silent(
    federation: SimulatedFederation, opened: Open
) -> None:
    federation.usual()
    federation.birth("offline")
    page = opened()
    page.wait_text("#banner", "The aggregator is offline")
    assert page.text("#connection-text") == "Stale"
    federation.presence("3", "online", "new")
    federation.presence("3", "offline", "old")  # the will of a connection that has a successor
    federation.presence("4", "online")
    page.wait('document.querySelector("#edge-4")?.dataset.state === "present"')
    assert page.page.locator("#edge-3").get_attribute("data-state") == "present"
    federation.presence("3", "offline", "new")
    page.wait('document.querySelector("#edge-3").dataset.state === "offline"')
    page.wait_text("#events", "Edge 3 is offline")
    # What it has said before still stands there.
    assert page.text("#f-primary") == "75.0 %"


def test_silence_pauses_and_ends_are_told(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    federation.status(written="2020-01-01T00:00:00Z")
    page = opened()
    page.wait_text("#banner", "No message from the aggregator for")
    federation.status(paused="no room on the disk: 3 MB of 10 MB")
    page.wait_text("#banner", "The run is paused: no room on the disk: 3 MB of 10 MB")
    federation.status(paused="by the operator: lunch", held=True)
    page.wait_text(
        "#banner", "The run is paused: by the operator: lunch. Continue it with fl-aggregator resume."
    )
    federation.status()
    page.wait('document.querySelector("#banner").hidden')
    page.wait_text("#events", "The run continues")
    federation.status(phase="finished", version=10)
    page.wait_text("#banner", "The run is finished")
    page.wait_text("#overview-title", "Finished: 10 of 10 versions")
    federation.birth("offline")
    page.wait_text("#events", "The aggregator is offline")
    page.wait_text("#banner", "The run is finished")


def test_the_status_grows_stale_before_ones_eyes(
    federation: SimulatedFederation, opened: Open, chromium: Browser
) -> None:
    federation.usual()
    page = opened(clock=True)
    page.wait_text("#overview-title", "Version 3")
    page.pause_clock()
    federation.status(retain=False, version=3)
    # The page draws only while its clock goes on, so the status is at most this step old when it shows.
    page.go_on_until_text("#overview-title", "Version 4", step=20)
    page.page.clock.fast_forward(9000)
    page.page.clock.run_for(1100)
    assert page.page.locator("#banner").is_hidden()
    page.page.clock.fast_forward(7000)
    page.page.clock.run_for(1100)
    page.wait_text("#banner", "No message from the aggregator for 18")


def test_strangers_strings_stay_strings(federation: SimulatedFederation, opened: Open) -> None:
    federation.birth()
    federation.status(paused=EVIL[:300])
    federation.history([0.5])
    federation.edges(
        {
            "1": edge("missing", reason=EVIL),
            "__proto__": edge("offline", reason=EVIL),
            "constructor": edge("in"),
        }
    )
    federation.result(1, {"1": EVIL})
    federation.result(2, outcome="abandoned", reason=EVIL, version=None)
    federation.requests()
    page = opened()
    page.wait_text("#banner", EVIL)
    page.wait_text("#events", EVIL)
    page.page.locator("#edge-1").click()
    page.wait_text("#edges-detail", EVIL)
    page.page.locator("#edges-as-table").click()
    page.wait_text("#edges-table", EVIL)
    scope = federation.scope(
        "rejected", client="1", session="s", round=3, digest=None, reason="malformed", detail=EVIL
    )
    federation.publish("replies/1", scope, retain=False)
    page.wait_text("#events", f"Edge 1 had its update for round 3 rejected: malformed: {EVIL}")
    page.draw((8, 8), (20, 20))
    federation.answer(federation.request(), label=EVIL, probabilities={EVIL: 1.0})
    page.wait_text("#answer-label", EVIL)
    page.page.locator("#predict-ask").click()
    federation.answer(federation.request(), label=None, probabilities=None, error=EVIL)
    page.wait_text("#answer .problem", EVIL)
    assert page.page.evaluate("window.pwned === undefined")
    assert page.page.locator("img:not(.brand img)").count() == 0
    assert page.page.locator("body script").count() == 0


JUNK = [
    b"", b"\xff\xfe", b"{", b"[]", b"null", b"7", b'"status"', b'{"kind": "status"}', b'{"kind": "__proto__", "v": 2}',
    b"[" * 4000,
]  # fmt: skip


WRONG: list[dict[str, Any]] = [
    {"rounds": -1}, {"rounds": "10"}, {"phase": "dancing"}, {"metrics": {"accuracy": "high"}}, {"metrics": [1]},
    {"missing": ["a b"]}, {"written": "yesterday"}, {"round": 1.5}, {"v": 1}, {"run": "<b>"},
]  # fmt: skip


def test_junk_is_ignored(federation: SimulatedFederation, opened: Open) -> None:
    federation.usual()
    page = opened()
    page.wait_text("#overview-title", "Version 3")
    for topic in ("status", "aggregator", "history", "round/3/edges", "round/x/edges", "round/3/result", "replies/1",
                  "clients/1/presence", "clients/<b>/presence"):  # fmt: skip
        for junk in JUNK:
            federation.publish(topic, junk, retain=False)
    federation.publish("status", b" " * 65_000 + json.dumps(federation.scope("status", rounds=99)).encode())
    for wrong in WRONG:
        federation.status(**wrong)
    federation.edges({"1": edge("flying")})
    federation.edges({"<b>": edge("in")})
    federation.publish(
        "clients/5/presence", {"v": 2, "kind": "presence", "client": "6", "state": "online", "session": "s"}
    )
    unequal = {"round": [2, 1]}
    federation.publish(
        "history", federation.scope("history", task="t", rounds=1, started="x", columns=unequal)
    )
    # Messages of one connection stay in order: once this is there, all the junk has been looked at.
    federation.status(version=4, round=5)
    page.wait_text("#overview-title", "Version 5 of 10")
    assert page.page.locator("#edges-grid li").count() == 3
    assert page.text("[data-curve=metric] .readout") == "round 2: accuracy 75.0 % (test)"


@pytest.mark.long
def test_of_ten_thousand_edges_a_part_is_drawn(federation: SimulatedFederation, opened: Open) -> None:
    """The page is given the message itself: an idle Mosquitto 2.0 would take half a minute to send it."""
    federation.usual()
    page = opened()
    page.wait_text("#overview-title", "Version 3 of 10")
    edges = {str(number): {"state": "training" if number < 1000 else "present"} for number in range(10_000)}
    tiles, training, note, rows = page.page.evaluate(
        """edges => {
          const federation = new Federation(() => {}, () => {});
          const bytes = (message) => new TextEncoder().encode(JSON.stringify(message));
          const say = (topic, message) => federation.hear(topic, bytes(message), false, 0);
          say("aggregator", {v: 2, kind: "aggregator", state: "online", session: "s", run: "a", incarnation: 1});
          const message = {v: 2, kind: "edges", run: "a", incarnation: 1, seq: 1, round: 3, phase: "collecting", edges};
          say("round/3/edges", message);
          Edges.draw(federation.edges(), federation);
          const count = (selector) => document.querySelectorAll(selector).length;
          const text = (selector) => document.querySelector(selector).textContent;
          const drawn = [count("#edges-grid li"), text(".chip[data-state=training] b"), text("#edges-note")];
          document.querySelector("#edges-as-table").click();
          return [...drawn, count("#edges-table tbody tr")];
        }""",
        edges,
    )
    assert (tiles, training, rows) == (3000, "1\u202f000", 200)
    assert note.startswith("7\u202f000 more are not shown here")


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_many_edges(federation: SimulatedFederation, opened: Open, count: int) -> None:
    federation.birth()
    federation.status(present=count)
    states = ["in", "training", "present", "missing", "offline"]
    edges = {
        str(number): edge(
            states[number % 5], reason="lost" if number % 5 == 3 else None, primary=number / count
        )
        for number in range(count)
    }
    federation.edges(edges)
    page = opened()
    page.wait(f'document.querySelectorAll("#edges-grid li").length === {count}')
    names = page.page.locator("#edges-grid li").evaluate_all(
        "tiles => tiles.map(tile => tile.dataset.client)"
    )
    assert names == [str(number) for number in range(count)]
    boxes = page.page.locator("#edges-grid").evaluate(
        "grid => [grid.clientHeight, grid.lastElementChild.clientWidth]"
    )
    assert boxes[0] <= 640
    assert boxes[1] >= 16, "tiles that can still be read"
    # By state, by name, one by one.
    for state in ("in", "training", "present", "offline"):
        page.page.locator(f".chip[data-state={state}]").click()
    assert page.page.locator("#edges-grid li").count() == count // 5
    page.page.locator("#edges-search").fill("9" * (len(str(count)) - 2))
    found = page.page.locator("#edges-grid li").evaluate_all(
        "tiles => tiles.map(tile => tile.dataset.client)"
    )
    assert found == [str(count - 7), str(count - 2)]
    page.page.locator("#edges-search").fill("")
    page.page.locator(".chip[data-state=in]").click()
    page.page.locator("#edge-0").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "End"):
        page.page.keyboard.press(key)
    page.wait_text("#edges-detail", f"Edge {count - 2}")
    page.page.locator("#edges-as-table").click()
    page.page.locator("[data-column=primary] button").click()
    assert page.page.locator("#edges-table tbody tr").first.inner_text().startswith(f"{count - 2}\t")
    assert page.page.locator("[data-column=primary]").get_attribute("aria-sort") == "descending"
    page.page.locator("#edges-as-grid").click()
    # A message about all of them is drawn in well under the second in which the next one may come.
    cost = page.page.evaluate(
        """async edges => {
          const federation = new Federation(() => {}, () => {});
          const birth = {v: 2, kind: "aggregator", state: "online", session: "s", run: "a", incarnation: 1};
          federation.hear("aggregator", new TextEncoder().encode(JSON.stringify(birth)), false, 0);
          const message = {v: 2, kind: "edges", run: "a", incarnation: 1, seq: 1, round: 1, phase: "collecting", edges};
          const payload = new TextEncoder().encode(JSON.stringify(message));
          const begun = performance.now();
          federation.hear("round/1/edges", payload, false, 0);
          Edges.draw(federation.edges(), federation);
          document.body.offsetHeight;
          return performance.now() - begun;
        }""",
        edges,
    )
    assert cost < 1000
