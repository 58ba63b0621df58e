"""The start scripts of the containers: which edges a container is, and the kits of the secure profile."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_shared.security.kit import Kit
from fl_shared.security.revocations import RevocationList
from fl_shared.security.signatures import Verifier
from tests.support.compose_files import ROOT, SERVICES, provision

SAYS = """\
#!/bin/sh
echo "$FL_ID|$FL_KIT|$FL_STATE_DIR|$*"
exec sleep "${LIVES:-0}"
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Starts ``container.sh`` as a container does; in the place of ``fl-edge`` is a program that says its settings."""
    assert shutil.which("flock"), "util-linux"
    program = tmp_path / "bin" / "fl-edge"
    program.parent.mkdir()
    program.write_text(SAYS)
    program.chmod(0o755)
    data = tmp_path / "data"
    data.mkdir()
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        told = {
            "FL_ID": "", "FL_KIT": "", "FL_STATE_DIR": "", **environment,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
        }  # fmt: skip
        process = subprocess.Popen(
            ["sh", str(ROOT / "edge_client" / "container.sh"), *arguments],
            cwd=data, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate(timeout=10)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_replicas_share_the_ids_and_one_that_dies_is_replaced_by_the_same(started: Any) -> None:
    one = started(FL_FLEET="5", LIVES="60")
    assert first_line(one) == "0-4||state|"
    two = started(FL_FLEET="5", LIVES="60")
    assert first_line(two) == "5-9||state|"
    three = started(FL_FLEET="5", LIVES="60")
    assert first_line(three) == "10-14||state|"
    two.kill()
    two.wait(10)
    assert first_line(started(FL_FLEET="5", LIVES="60")) == "5-9||state|"


def test_a_container_may_be_one_edge(started: Any) -> None:
    assert first_line(started(FL_FLEET="1", LIVES="60")) == "0||state/0|"
    assert first_line(started(FL_FLEET="1", LIVES="60")) == "1||state/1|"


def test_without_a_word_it_is_the_fleet_of_the_reference_workload(started: Any) -> None:
    assert first_line(started()) == f"0-{Settings().clients - 1}||state|"


@pytest.mark.parametrize("fleet", ["0", "-1", "05", "ten", "12345", "5 6"])
def test_what_is_no_number_of_edges_is_a_mistake(fleet: str, started: Any) -> None:
    process = started(FL_FLEET=fleet)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 2
    assert f"FL_FLEET={fleet}: expected 1 to 9999" in said


def test_who_says_it_himself_is_not_told(started: Any) -> None:
    assert first_line(started(FL_ID="lab-a")) == "lab-a|||"
    assert first_line(started(FL_KIT="/k.zip", FL_KITS="/kits")) == "|/k.zip||"
    assert first_line(started("--id", "7", FL_KITS="/kits")) == "|||--id 7"


def test_each_replica_takes_a_kit_of_its_own(started: Any, tmp_path: Path) -> None:
    kits = tmp_path / "kits"
    kits.mkdir()
    for name in ("edge-0", "edge-1"):
        (kits / f"{name}.zip").touch(mode=0o400)
    one = started(FL_KITS=str(kits), LIVES="60")
    assert first_line(one) == f"|{kits}/edge-0.zip|state/edge-0|"
    assert first_line(started(FL_KITS=str(kits), LIVES="60")) == f"|{kits}/edge-1.zip|state/edge-1|"
    (tmp_path / "newer.zip").touch()
    (tmp_path / "newer.zip").replace(kits / "edge-0.zip")  # as provision does; who has the kit keeps it
    more = started(FL_KITS=str(kits))
    _, said = more.communicate(timeout=10)
    assert more.returncode == 2
    assert said == f"fl-edge: no kit in {kits} is free: expected one for each replica\n"
    one.kill()
    one.wait(10)
    assert first_line(started(FL_KITS=str(kits))) == f"|{kits}/edge-0.zip|state/edge-0|"


def test_provision_gives_each_service_what_it_needs_and_changes_it_later(tmp_path: Path) -> None:
    for name in ("broker", "aggregator", "edges", "clients"):
        (tmp_path / "kits" / name).mkdir(parents=True)

    def given(name: str) -> set[str]:
        return {file.name for file in (tmp_path / "kits" / name).iterdir()}

    provision(tmp_path)
    assert given("aggregator") == {"aggregator.zip", "revoked.json"}
    assert given("edges") == {"edge-0.zip", "edge-1.zip"}
    assert given("clients") == {"operator.zip", "asker-asker.zip"}
    needed = set(re.findall(r"/kits/(\S+)", (tmp_path / "kits/broker/mosquitto.conf").read_text()))
    asked = {
        word.removeprefix("/kits/")
        for word in SERVICES["secure-broker"]["healthcheck"]["test"]
        if word.startswith("/kits/")
    }
    started = {SERVICES["secure-broker"]["command"][-1].removeprefix("/kits/")}
    assert given("broker") >= needed | asked | started
    assert not any(name.endswith(".zip") or "authority" in name for name in given("broker"))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "kits").glob("*/*")}
    assert modes == {0o600}
    kit = Kit.read(tmp_path / "kits/edges/edge-1.zip")
    assert kit.broker == "mqtts://secure-broker:8883"
    assert set(kit.roles) == {"train", "predict"}

    before = (tmp_path / "kits/edges/edge-1.zip").read_bytes()
    provision(tmp_path)
    assert (tmp_path / "kits/edges/edge-1.zip").read_bytes() == before, "it is made once"

    provision(tmp_path, "revoke", "0")
    assert given("edges") == {"edge-1.zip"}
    listed = tmp_path / "kits/aggregator/revoked.json"
    verifier = Verifier(Kit.read(tmp_path / "kits/aggregator/aggregator.zip").enrolment_public)
    assert RevocationList.read(listed.read_bytes(), verifier).accounts == ("0",)
    assert "user 0\n" not in (tmp_path / "kits/broker/acl").read_text()
    provision(tmp_path, "add", "7", "--predict", "7")
    assert given("edges") == {"edge-1.zip", "edge-7.zip"}


def test_the_scripts_are_posix_sh() -> None:
    assert sys.platform != "win32"
    for script in ("edge_client/container.sh", "broker/provision.sh"):
        assert (ROOT / script).read_text().startswith("#!/bin/sh\n")
        subprocess.run(["sh", "-n", str(ROOT / script)], check=True)
