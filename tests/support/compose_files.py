"""Where the container files are."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import BIN

ROOT = Path(__file__).parents[2]

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def provision(place: Path, *arguments: str) -> str:
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}", "OUT": str(place / "out"), "KITS": str(place / "kits"),
        "EDGES": "2", "BROKER_HOST": "secure-broker",
    }  # fmt: skip
    script = ["sh", str(ROOT / "broker" / "provision.sh"), *arguments]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, shlex.join(script) + done.stdout + done.stderr
    return done.stdout
