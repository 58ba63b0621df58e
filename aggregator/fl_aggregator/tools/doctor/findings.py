"""What was found out about a broker, and the verdict that follows. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Verdict = Literal["ok", "limited", "missing", "untested"]

VERDICT_WIDTH: Final = 9
NAME_WIDTH: Final = 17


@dataclass(frozen=True, slots=True)
class Finding:
    """``detail``: what was seen. ``effect``: what that means for a run. ``remedy``: what to set, for Mosquitto.

    ``missing``: no run without it. ``limited``: a run does without, or with less. ``untested``: it could not be tried,
    which matters if it is ``essential``. ``measured``: figures, for `--json`; seconds and bytes.
    """

    name: str
    verdict: Verdict
    detail: str
    effect: str = ""
    remedy: str = ""
    essential: bool = True
    measured: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        effect = f"; {self.effect}" if self.effect else ""
        remedy = f" [{self.remedy}]" if self.remedy else ""
        return f"{self.verdict:<{VERDICT_WIDTH}}{self.name:<{NAME_WIDTH}}{self.detail}{effect}{remedy}"

    def as_json(self) -> dict[str, Any]:
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
    """All findings about ``broker`` (its URL)."""

    broker: str
    prefix: str
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.verdict == "missing")

    @property
    def untested(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.verdict == "untested" and each.essential)

    @property
    def supports_run(self) -> bool | None:
        """Null: what a run needs could not be tried."""
        if self.missing:
            return False
        return None if self.untested else True

    def verdict(self) -> str:
        """The last line."""
        if self.missing:
            return "this broker cannot support a run: " + "; ".join(
                f"{each.name}: {each.effect or each.detail}" for each in self.missing
            )
        if self.untested:
            untested = ", ".join(each.name for each in self.untested)
            return f"cannot tell whether this broker can support a run; untested: {untested}"
        limited = ", ".join(each.name for each in self.findings if each.verdict == "limited")
        return "this broker can support a run" + (f", within limits: {limited}" if limited else "")

    def as_json(self) -> dict[str, Any]:
        return {
            "broker": self.broker,
            "prefix": self.prefix,
            "can_carry_a_run": self.supports_run,
            "verdict": self.verdict(),
            "findings": [each.as_json() for each in self.findings],
        }
