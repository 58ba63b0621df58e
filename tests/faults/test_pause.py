"""``fl-aggregator pause`` and ``resume``: a run stands still, even if its aggregator is killed (8.13 and 8.14)."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.simulated_aggregator import retain_birth
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

PREFIX = "paused/run"
RUN = ("--prefix", PREFIX, "--task", "synthetic-50", "--clients", "2", "--per-round", "2", "--rounds", "100000",
       "--holdout", "0")  # fmt: skip


def ask(broker: Mosquitto, *arguments: str, prefix: str = PREFIX) -> tuple[int, str]:
    done = programs.run("fl-aggregator", *arguments, "--broker", broker.url, "--prefix", prefix)
    return done.returncode, done.stdout + done.stderr


def test_a_paused_run_stands_still_until_it_is_resumed(
    tmp_path: Path, shared_mosquitto: Mosquitto, stack: ExitStack
) -> None:
    url = shared_mosquitto.url
    stack.enter_context(
        programs.edges(tmp_path / "edges", url, "0-1", "--prefix", PREFIX, "--task", "synthetic-50")
    )
    watcher = stack.enter_context(
        Client(shared_mosquitto.endpoint, f"{PREFIX}/status", f"{PREFIX}/answers/+", prefix=PREFIX)
    )

    def status(**wanted: Any) -> m.Status:
        def newest() -> m.Status | None:
            found = watcher.all(m.Status)
            same = found and all(getattr(found[-1], name) == value for name, value in wanted.items())
            return found[-1] if same else None

        reached: m.Status = wait_until(newest, 30, f"a status with {wanted}")
        return reached

    with programs.aggregator(tmp_path, url, *RUN) as run:
        wait_until(lambda: "round 2: version" in run.err, 60, "two rounds")
        code, said = ask(shared_mosquitto, "pause", "--reason", "lunch")
        assert (code, said.partition(": ")[2]) == (0, "paused by the operator: lunch\n"), said
        code, said = ask(shared_mosquitto, "pause", "--reason", "tea")
        assert (code, said.partition(": ")[2]) == (0, "was already paused, by the operator: lunch\n"), said
        version = status(held=True, pauses=1, paused="by the operator: lunch", phase="selecting").version
        code, said = ask(shared_mosquitto, "status")
        assert "paused: by the operator: lunch; fl-aggregator resume continues it" in said
        run.send(signal.SIGKILL)
        run.wait(10)

    with programs.resumed(tmp_path) as again:
        wait_until(lambda: "paused: by the operator: lunch" in again.err, 30, "it is paused again")
        found = status(incarnation=2, present=2)
        assert (found.held, found.phase, found.version) == (True, "selecting", version), "no round opens"
        late = m.Pause(run=found.run, incarnation=2, number=1)
        code, said = ask(shared_mosquitto, "resume")
        assert (code, said.partition(": ")[2]) == (0, "resumed\n"), said
        wait_until(lambda: (status(held=False).version or 0) > (version or 0) + 1, 30, "more rounds")
        watcher.publish(t.ControlTopic(), late, response_topic=f"{PREFIX}/answers/me", correlation=b"17")
        refused = watcher.wait_for(
            lambda one: one.topic == f"{PREFIX}/answers/me", "the answer to a late copy"
        )
        assert refused.correlation == b"17"
        answer = json.loads(refused.payload)
        assert (answer["accepted"], answer["detail"]) == (False, "pause 1 has ended")
        code, said = ask(shared_mosquitto, "stop")
        assert code == 0, said
        assert again.wait(30) == 130, again.output


def test_nobody_answers_and_what_a_user_does_wrong(shared_mosquitto: Mosquitto) -> None:
    code, said = ask(shared_mosquitto, "pause", prefix="paused/nobody")
    assert (code, "no run is online under the prefix 'paused/nobody'" in said) == (2, True), said
    retain_birth(shared_mosquitto.endpoint, "paused/ghost")
    with Client(shared_mosquitto.endpoint, "paused/ghost/control", prefix="paused/ghost") as listener:
        code, said = ask(shared_mosquitto, "resume", "--timeout", "1", prefix="paused/ghost")
        assert (code, "run ghost has not answered within 1 s" in said) == (1, True), said
        listener.catch_up()
        sent = [one for one in listener.received if one.topic == "paused/ghost/control"]
        assert sent == [], "a command without a number is obeyed whenever a copy comes"
    code, said = ask(shared_mosquitto, "pause", "--run", "other", prefix="paused/ghost")
    assert (code, "--run other: the run that is online" in said) == (2, True), said
    with Client(shared_mosquitto.endpoint) as client:
        client.publish("paused/ghost/aggregator", b"", retain=True)
