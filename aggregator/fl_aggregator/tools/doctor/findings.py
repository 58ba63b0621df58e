"""The findings about a broker, and the verdict that follows from them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Verdict = Literal["ok", "limited", "missing", "untested"]

VERDICT_WIDTH: Final = 9
NAME_WIDTH: Final = 17


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``detail``: what was observed. ``effect``: what that means for a run.

    ``remedy``: what to set, for Mosquitto. The verdict ``missing`` means that no run is possible, ``limited``
    that a run works with restrictions, ``untested`` that the check could not run, which matters if it is
    ``essential``. ``measured``: numbers for ``--json``, in seconds and bytes.
    """

    name: str
    verdict: Verdict
    detail: str
    effect: str = ""
    remedy: str = ""
    essential: bool = True
    measured: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The finding as one line for a person."""
        effect = f"; {self.effect}" if self.effect else ""
        remedy = f" [{self.remedy}]" if self.remedy else ""
        return f"{self.verdict:<{VERDICT_WIDTH}}{self.name:<{NAME_WIDTH}}{self.detail}{effect}{remedy}"

    def as_json(self) -> dict[str, Any]:
        """The finding as an object for JSON."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "detail": self.detail,
            "effect": self.effect,
            "remedy": self.remedy,
            "measured": self.measured,
        }


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings about the broker with the URL ``broker``; ``for_edge``: about what one edge may do there."""

    broker: str
    prefix: str
    findings: tuple[Finding, ...]
    for_edge: bool = False

    @property
    def missing(self) -> tuple[Finding, ...]:
        """The findings that make a run impossible."""
        return tuple(finding for finding in self.findings if finding.verdict == "missing")

    @property
    def untested(self) -> tuple[Finding, ...]:
        """The essential checks that could not run."""
        return tuple(
            finding for finding in self.findings if finding.verdict == "untested" and finding.essential
        )

    @property
    def supports_run(self) -> bool | None:
        """Whether a run is possible on this broker, null if an essential check could not run."""
        if self.missing:
            return False
        return None if self.untested else True

    def verdict(self) -> str:
        """The verdict as one line for a person."""
        subject, verb = ("this edge", "take part in") if self.for_edge else ("this broker", "support")
        if self.missing:
            return f"{subject} cannot {verb} a run: " + "; ".join(
                f"{finding.name}: {finding.effect or finding.detail}" for finding in self.missing
            )
        if self.untested:
            untested = ", ".join(each.name for each in self.untested)
            return f"cannot tell whether {subject} can {verb} a run; untested: {untested}"
        limited = ", ".join(each.name for each in self.findings if each.verdict == "limited")
        return f"{subject} can {verb} a run" + (f", within limits: {limited}" if limited else "")

    def as_json(self) -> dict[str, Any]:
        """The report as an object for JSON."""
        return {
            "broker": self.broker,
            "prefix": self.prefix,
            "can_carry_a_run": self.supports_run,
            "verdict": self.verdict(),
            "findings": [finding.as_json() for finding in self.findings],
        }
