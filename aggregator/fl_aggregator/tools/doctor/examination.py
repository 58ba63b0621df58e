"""Runs all checks, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, get_args

from fl_aggregator.tools.doctor import across, delivery, online, packets, queues, rights
from fl_aggregator.tools.doctor.bench import ProbeSession
from fl_aggregator.tools.doctor.findings import DoctorReport, Finding
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.mqtt.paho.probe_results import ProbeFailed
from fl_shared.protocol.messages import ClientRole

EDGE_ROLES: Final = frozenset(get_args(ClientRole))
Check = Callable[[ProbeSession], Finding]

PREREQUISITE_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("limits", packets.limits),
    ("messages", delivery.round_trips),
)
"""If the last of them does not succeed, no other check can run."""
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("retain", delivery.retained),
    ("wildcards", delivery.wildcards),
    ("retain wildcards", delivery.retained_for_wildcards),
    ("no-local", delivery.no_local),
    ("wills", delivery.wills),
    ("packets", packets.packets),
    ("bursts", queues.bursts),
    ("model windows", queues.backlog),
    ("shared", delivery.shared_subscriptions),
    ("answers", delivery.response_topics),
    ("expiry", delivery.expiry),
)


def run_checks(
    access: BrokerAccess, report_finding: Callable[[Finding], None], also: BrokerAccess | None = None
) -> DoctorReport:
    """Checks the broker, and calls ``report_finding`` with each finding.

    Takes about ten seconds, a few minutes if much must be tried a second time. With the kit of an edge, which may not
    use the topics of most checks, only its rights are checked. ``also``: another broker, or another address of this
    one; what crosses between the two is checked, too.

    Raises ``UserError`` if the first connection fails.
    """
    findings: list[Finding] = []
    for_edge = access.kit is not None and not EDGE_ROLES.isdisjoint(access.kit.roles)

    def add(finding: Finding) -> Finding:
        findings.append(finding)
        report_finding(finding)
        return finding

    run_status = online.check_online(access)
    add(run_status.connection)
    bench = ProbeSession(access.connection_settings(), access.prefix)
    try:
        bench.read_connack()
        for name, check in PREREQUISITE_CHECKS[: 1 if for_edge else None]:
            first = add(run_check(name, check, bench))
        if first.verdict in ("ok", "limited") and not for_edge:
            for name, check in CHECKS:
                add(run_check(name, check, bench))
            if also is not None:
                _run_cross_checks(bench, also, add)
        if first.verdict == "missing":
            add(Finding("rights", "untested", "no message gets through"))
        else:
            add(
                run_check(
                    "rights", lambda _: rights.account_rights(bench, access, run_status.is_online), bench
                )
            )
    except ProbeFailed as error:
        add(Finding("limits", "missing", str(error)))
    finally:
        bench.clear_retained()
    add(run_status.run)
    return DoctorReport(str(access.address), access.prefix, tuple(findings), for_edge)


def _run_cross_checks(here: ProbeSession, also: BrokerAccess, add: Callable[[Finding], Finding]) -> None:
    there = ProbeSession(also.connection_settings(), also.prefix)
    try:
        there.read_connack()
        for check in across.CROSS_CHECKS:
            finding = add(run_check(f"across {check.__name__}", partial(_cross, check, there), here))
            if finding.verdict == "missing" and check is across.messages:
                break
    except (ProbeFailed, OSError) as error:
        add(Finding("across messages", "missing", f"{also.address}: {error}"))
    finally:
        there.clear_retained()


def _cross(check: across.CrossCheck, there: ProbeSession, here: ProbeSession) -> Finding:
    return check(here, there)


def run_check(name: str, check: Check, bench: ProbeSession) -> Finding:
    """Runs a check, and unless it is ok, runs it again with longer waits: only the second attempt counts then.

    So a moment in which the broker, the network or this machine is busy is not taken for a fault of the broker.
    """
    if bench.is_unreachable:
        return Finding(name, "untested", "the broker no longer answers")
    first = _attempt(name, check, bench)
    if first.verdict == "ok" or bench.is_unreachable:
        return first
    with bench.second_attempt():
        second = _attempt(name, check, bench)
    if second.verdict != "ok":
        return second
    return replace(second, detail=f"{second.detail}; slow: at the first attempt, {first.detail}")


def _attempt(name: str, check: Check, bench: ProbeSession) -> Finding:
    """If the broker does not answer, or closes the connection, the feature counts as missing."""
    try:
        return check(bench)
    except ProbeFailed as error:
        return Finding(name, "missing", str(error))
