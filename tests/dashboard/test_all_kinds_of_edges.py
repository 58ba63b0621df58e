"""One run with edges of five kinds: with PyTorch, without it, in Node, in a browser, in MicroPython."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fl_aggregator.tools.dashboard.address import WebSocketAddress
from fl_aggregator.tools.dashboard.server import DashboardServer
from fl_edge.tasks.digits_mlp import DigitsMlpOptions, DigitsMlpTask
from fl_shared.protocol import messages as m
from fl_shared.system.mosquitto import LOOPBACK
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.browser import CheckedPage
from tests.support.client import Client
from tests.support.micropython_edge import micropython_edge, needs_micropython
from tests.support.node_edge import node_edge, with_packages
from tests.support.observed_fold import check_versions

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long, needs_micropython]

PREFIX = "five/kinds"
ROUNDS = 3
RUN = (
    *("--task", "digits-mlp", "--task-option", "hidden=0", "--rounds", str(ROUNDS), "--epochs", "2"),
    *("--clients", "5", "--per-round", "5", "--quorum", "5", "--deadline", "240", "--wait", "240"),
)


def test_five_kinds_of_edges_share_a_run(
    chromium: Browser, web_broker: tuple[Mosquitto, int], stack: ExitStack, tmp_path: Path
) -> None:
    """All take part in every round, and each version has the bits of the exact fold of their updates (5.10)."""
    broker, port = web_broker
    url, prefix = broker.url, ("--prefix", PREFIX)
    observer = stack.enter_context(Client(broker.endpoint, f"{PREFIX}/#", prefix=PREFIX))
    stack.enter_context(programs.edges(tmp_path / "full", url, "0", *prefix))
    stack.enter_context(programs.edges(tmp_path / "light", url, "1", "--light", *prefix))
    stack.enter_context(node_edge(with_packages(tmp_path), "2", "--id", "2", "--broker", url, *prefix))
    stack.enter_context(micropython_edge(tmp_path / "small", broker.port, "small", PREFIX))
    address = WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}/mqtt")
    page_url = stack.enter_context(DashboardServer(address, PREFIX, (LOOPBACK, 0), join=True)).url
    run = stack.enter_context(programs.aggregator(tmp_path, url, *prefix, *RUN))
    page = CheckedPage(chromium)
    stack.callback(page.close)
    page.page.goto(page_url)
    page.page.wait_for_selector("#join:not([hidden])")
    page.page.click("#join-start")
    run.ends_well(240)
    lines = programs.history(tmp_path)
    names = sorted(["0", "1", "2", "small", page.text("#join-name")])
    assert [line["participants"] for line in lines] == [names] * ROUNDS
    assert lines[-1]["metrics"]["accuracy"] > 0.85, lines[-1]
    observer.catch_up()
    model = DigitsMlpTask(DigitsMlpOptions(hidden=0)).layers().manifest
    assert check_versions(observer.received, model) == ROUNDS
    accepted = {(one.round, one.client) for one in observer.all(m.Accepted)}
    assert accepted >= {(number, one) for number in range(1, ROUNDS + 1) for one in names}
    assert not observer.all(m.TrainingFailed)
    assert not observer.all(m.Rejected)
