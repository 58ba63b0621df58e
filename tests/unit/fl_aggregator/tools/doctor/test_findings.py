"""The verdict of ``fl-aggregator doctor`` follows from its findings."""

from __future__ import annotations

import pytest

from fl_aggregator.tools.doctor.findings import DoctorReport, Finding

OK = Finding("retain", "ok", "stored")
LIMITED = Finding(
    "bursts", "limited", "7 of 64 came", "rounds are slow", "mosquitto.conf: max_queued_messages 1000"
)
MISSING = Finding("wildcards", "missing", "refused", "the aggregator receives nothing from edges")
UNTESTED = Finding("messages", "untested", "forbidden")
SKIPPED = Finding("rights", "untested", "a run is online", essential=False)


@pytest.mark.parametrize(
    ("findings", "can", "said"),
    [
        ((OK,), True, "this broker can support a run"),
        ((OK, SKIPPED), True, "this broker can support a run"),
        ((OK, LIMITED, SKIPPED), True, "this broker can support a run, within limits: bursts"),
        (
            (OK, UNTESTED, LIMITED),
            None,
            "cannot tell whether this broker can support a run; untested: messages",
        ),
        (
            (MISSING, UNTESTED, LIMITED),
            False,
            "cannot support a run: wildcards: the aggregator receives nothing from edges",
        ),
    ],
)
def test_the_worst_finding_decides(findings: tuple[Finding, ...], can: bool | None, said: str) -> None:
    report = DoctorReport("mqtt://localhost:1883", "fl", findings)
    assert report.supports_run is can
    assert report.verdict().endswith(said)
    assert report.as_json()["can_carry_a_run"] is can


def test_a_finding_is_one_line_with_what_to_set() -> None:
    assert LIMITED.line() == (
        "limited  bursts           7 of 64 came; rounds are slow [mosquitto.conf: max_queued_messages 1000]"
    )
    assert OK.line() == "ok       retain           stored"
