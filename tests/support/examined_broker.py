"""What ``fl-aggregator doctor`` finds at a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.programs import Program

ALL_NAMES = [
    "connection", "limits", "messages", "retain", "wildcards", "retain wildcards", "no-local", "wills", "packets",
    "bursts", "model windows", "shared", "answers", "expiry", "rights", "run",
]  # fmt: skip


LONGEST = 110.0
"""Seconds that an examination may take here; it ends in a tenth of that on a machine that has nothing else to do."""


class Examined:
    """``doctor --json``, run to its end."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        with Program(directory, "fl-aggregator", "doctor", "--json", *arguments) as program:
            self.code = program.wait(LONGEST)
            assert self.code in (0, 1), program.output
            self.report = program.result
            self.output = program.output
        self.findings: dict[str, dict[str, Any]] = {each["name"]: each for each in self.report["findings"]}

    def verdicts(self, wanted: str) -> list[str]:
        return [name for name, each in self.findings.items() if each["verdict"] == wanted]

    def measured(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.findings[name]["measured"]
        return found
