"""All trials, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fl_aggregator.tools.doctor import delivery, online, packets, queues, rights
from fl_aggregator.tools.doctor.bench import TestBench
from fl_aggregator.tools.doctor.findings import DoctorReport, Finding
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt.paho.probe_results import ProbeFailed

Check = Callable[[TestBench], Finding]

PREREQUISITE_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("limits", packets.limits),
    ("messages", delivery.round_trips),
)
"""Without the last of them, nothing can be tried."""
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("retain", delivery.retained),
    ("wildcards", delivery.wildcards),
    ("no-local", delivery.no_local),
    ("wills", delivery.wills),
    ("packets", packets.packets),
    ("bursts", queues.bursts),
    ("model windows", queues.backlog),
    ("shared", delivery.shared_subscriptions),
    ("answers", delivery.response_topics),
    ("expiry", delivery.expiry),
)


def run_checks(reach: BrokerAccess, tell: Callable[[Finding], None]) -> DoctorReport:
    """Tries the broker, and tells each finding as soon as it is there; takes about ten seconds, at most some minutes.

    Raises ``UserError`` if it cannot connect at all.
    """
    findings: list[Finding] = []

    def found(finding: Finding) -> Finding:
        findings.append(finding)
        tell(finding)
        return finding

    sight = online.check_online(reach)
    found(sight.connection)
    bench = TestBench(reach.connection_settings(), reach.prefix)
    try:
        bench.read_connack()
        for name, trial in PREREQUISITE_CHECKS:
            first = found(_run_check(name, trial, bench))
        if first.verdict in ("ok", "limited"):
            for name, trial in CHECKS:
                found(_run_check(name, trial, bench))
        if first.verdict == "missing":
            found(Finding("rights", "untested", "no message gets through"))
        else:
            found(_run_check("rights", lambda _: rights.account_rights(bench, reach, sight.is_online), bench))
    except ProbeFailed as error:
        found(Finding("limits", "missing", str(error)))
    finally:
        bench.clear_retained()
    found(sight.run)
    return DoctorReport(str(reach.address), reach.prefix, tuple(findings))


def _run_check(name: str, trial: Check, bench: TestBench) -> Finding:
    """What a broker does not answer, or ends the connection for, it does not have."""
    if bench.is_unreachable:
        return Finding(name, "untested", "the broker no longer answers")
    try:
        return trial(bench)
    except ProbeFailed as error:
        return Finding(name, "missing", str(error))
