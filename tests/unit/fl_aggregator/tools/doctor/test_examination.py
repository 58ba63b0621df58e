"""A check that fails is run again with longer waits, and only the second attempt counts."""

from __future__ import annotations

import pytest

from fl_aggregator.tools.doctor.bench import PATIENCE, ProbeSession
from fl_aggregator.tools.doctor.examination import Check, run_check
from fl_aggregator.tools.doctor.findings import Finding, Verdict
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.mqtt.paho.probe_results import ProbeFailed

OK = Finding("retain", "ok", "stored")
LOST = Finding("retain", "missing", "not kept", "no run")
LIMITED = Finding("retain", "limited", "half of it")


class Attempts:
    """A check with prepared outcomes, and the waits and the topic of each attempt."""

    def __init__(self, *outcomes: Finding | ProbeFailed) -> None:
        self._outcomes = list(outcomes)
        self.waits: list[tuple[float, float]] = []
        self.topics: set[str] = set()

    def __call__(self, bench: ProbeSession) -> Finding:
        self.waits.append((bench.timeout, bench.idle_timeout))
        self.topics.add(bench.topic("here"))
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, ProbeFailed):
            raise outcome
        return outcome


@pytest.fixture
def bench() -> ProbeSession:
    return ProbeSession(ConnectionSettings(BrokerAddress("localhost")), "fl")


def test_what_is_ok_is_tried_once(bench: ProbeSession) -> None:
    attempts: Check = Attempts(OK)
    assert run_check("retain", attempts, bench) == OK


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (LOST, "not kept"),
        (LIMITED, "half of it"),
        (ProbeFailed("no answer to CONNECT"), "no answer to CONNECT"),
    ],
)
def test_what_is_ok_the_second_time_is_only_slow(
    bench: ProbeSession, first: Finding | ProbeFailed, said: str
) -> None:
    attempts = Attempts(first, OK)
    finding = run_check("retain", attempts, bench)
    assert finding.verdict == "ok"
    assert finding.detail == f"stored; slow: at the first attempt, {said}"
    before, again = attempts.waits
    assert again == tuple(PATIENCE * seconds for seconds in before)
    assert len(attempts.topics) == 2, "what comes late from the first attempt is not taken for an answer"
    assert (bench.timeout, bench.idle_timeout) == before


@pytest.mark.parametrize(
    ("second", "verdict"), [(LOST, "missing"), (LIMITED, "limited"), (ProbeFailed("closed"), "missing")]
)
def test_the_second_attempt_decides(
    bench: ProbeSession, second: Finding | ProbeFailed, verdict: Verdict
) -> None:
    assert run_check("retain", Attempts(LOST, second), bench).verdict == verdict
