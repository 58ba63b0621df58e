"""All trials, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fl_aggregator.tools.doctor import delivery, online, packets, queues, rights
from fl_aggregator.tools.doctor.bench import Bench
from fl_aggregator.tools.doctor.findings import Finding, Report
from fl_shared.cli.broker_access import BrokerReach
from fl_shared.mqtt.paho.probe_results import ProbeFailed

Trial = Callable[[Bench], Finding]

FIRST: Final[tuple[tuple[str, Trial], ...]] = (
    ("limits", packets.limits),
    ("messages", delivery.round_trips),
)
"""Without the last of them, nothing can be tried."""
TRIALS: Final[tuple[tuple[str, Trial], ...]] = (
    ("retain", delivery.retained),
    ("wildcards", delivery.wildcards),
    ("no-local", delivery.foreign_only),
    ("wills", delivery.wills),
    ("packets", packets.packets),
    ("bursts", queues.bursts),
    ("model windows", queues.backlog),
    ("shared", delivery.shared),
    ("answers", delivery.answers),
    ("expiry", delivery.expiry),
)


def examine(reach: BrokerReach, tell: Callable[[Finding], None]) -> Report:
    """Tries the broker, and tells each finding as soon as it is there; takes about ten seconds, at most some minutes.

    Raises ``UserError`` if it cannot connect at all.
    """
    findings: list[Finding] = []

    def found(finding: Finding) -> Finding:
        findings.append(finding)
        tell(finding)
        return finding

    sight = online.look(reach)
    found(sight.connection)
    bench = Bench(reach.connection(), reach.prefix)
    try:
        bench.greet()
        for name, trial in FIRST:
            first = found(_tried(name, trial, bench))
        if first.verdict in ("ok", "limited"):
            for name, trial in TRIALS:
                found(_tried(name, trial, bench))
        if first.verdict == "missing":
            found(Finding("rights", "untested", "no message gets through"))
        else:
            found(_tried("rights", lambda _: rights.of_account(bench, reach, sight.is_online), bench))
    except ProbeFailed as error:
        found(Finding("limits", "missing", str(error)))
    finally:
        bench.sweep()
    found(sight.run)
    return Report(str(reach.address), reach.prefix, tuple(findings))


def _tried(name: str, trial: Trial, bench: Bench) -> Finding:
    """What a broker does not answer, or ends the connection for, it does not have."""
    if bench.is_gone:
        return Finding(name, "untested", "the broker no longer answers")
    try:
        return trial(bench)
    except ProbeFailed as error:
        return Finding(name, "missing", str(error))
