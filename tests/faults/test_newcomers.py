"""One account that never joins does not keep others out, whose names the aggregator does not know yet either."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_aggregator.messaging.rate_limits import NEW_CLIENT_BURST
from fl_aggregator.messaging.rejections import UNKNOWN
from fl_shared.mqtt.network import Network
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.flood import Flood
from tests.support.synthetic_run import TASK, settings

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(960)]

NAMES = ("anna", "bert", "cleo")


def test_one_account_that_never_joins_keeps_nobody_out(
    tmp_path: Path, mosquitto: Mosquitto, network: Network, stack: ExitStack
) -> None:
    with programs.aggregator(tmp_path, mosquitto.url, *settings(2), "--wait", "90") as run:
        observer = stack.enter_context(Client(mosquitto.endpoint, "fl/aggregator"))
        observer.expect(m.AggregatorPresence, 20, state="online")
        mallory = Flood(
            network, mosquitto, lambda _: (t.RegisterTopic("mallory"), b"{}"), 4 * NEW_CLIENT_BURST
        )
        with mallory.going_on():
            mallory.wait_for_burst()
            for name in NAMES:
                stack.enter_context(programs.edges(tmp_path / name, mosquitto.url, name, "--task", TASK))
            run.ends_well(120)
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [list(NAMES)] * 2
    counted = {name for line in lines for name in line["refused"]}
    assert counted == {"mallory"}, f"under the name of its topic, and nobody is {UNKNOWN}"
