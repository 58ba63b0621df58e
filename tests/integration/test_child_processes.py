"""Child processes end with their parent, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fl_shared.system.child_process import TERMINATION_GRACE, ChildProcess
from fl_shared.system.mosquitto import accepts_connect
from tests.support.wait import DEADLINE, wait_until

pytestmark = pytest.mark.broker


def alive(pid: int) -> bool:
    """A zombie, which nobody has asked for its status yet, is not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return bool(state.strip()) and not state.startswith("Z")


PARENT = """
import sys, time
from pathlib import Path
from fl_shared.system.mosquitto import MosquittoChild
broker = MosquittoChild(Path(sys.argv[1]))
print(broker.port, flush=True)
time.sleep(60)
"""


def test_the_broker_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    port = int(parent.stdout.readline())
    assert accepts_connect("127.0.0.1", port)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not accepts_connect("127.0.0.1", port), 5.0, "the broker has ended")
    assert "terminating" in (tmp_path / "mosquitto.log").read_text()


def test_it_ends_also_when_the_leash_itself_is_killed(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent has died")
    program = ChildProcess([sys.executable, "-c", PRINTS_ITS_PID], tmp_path / "log")
    pid = first_number(tmp_path / "log")
    os.kill(os_parent(pid), signal.SIGKILL)
    wait_until(lambda: not alive(pid), DEADLINE, "the process has ended")
    assert program.stop() == -signal.SIGKILL


PRINTS_ITS_PID = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def first_number(log: Path) -> int:
    wait_until(lambda: log.read_text().endswith("\n"), DEADLINE, "a line in the log")
    return int(log.read_text().split()[0])


def os_parent(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_leash_ends_with_its_program_and_its_status(tmp_path: Path, code: str, status: int) -> None:
    program = ChildProcess([sys.executable, "-I", "-S", "-c", "print('out');" + code], tmp_path / "log")
    assert program.wait(DEADLINE) == status
    assert program.poll() == status
    assert program.stop() == status
    assert program.log_tail() == ("" if status == 137 else "out")


def test_a_program_that_is_not_there_is_status_127(tmp_path: Path) -> None:
    program = ChildProcess([str(tmp_path / "nothing")], tmp_path / "log")
    assert program.wait(DEADLINE) == 127
    assert "No such file" in program.log_tail()
    usage = subprocess.run(
        [sys.executable, "-m", "fl_shared.system.child_process", "sleep"], capture_output=True, check=False
    )
    assert usage.returncode == 2
    assert b"usage" in usage.stderr


def test_what_ignores_sigterm_is_killed_and_with_it_what_it_started(tmp_path: Path) -> None:
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    program = ChildProcess([sys.executable, "-c", code], tmp_path / "log")
    first_number(tmp_path / "log")
    own_pid, child = map(int, (tmp_path / "log").read_text().split())
    assert alive(own_pid)
    assert alive(child)
    begin = time.monotonic()
    assert program.stop() == 128 + signal.SIGKILL
    assert time.monotonic() - begin > TERMINATION_GRACE - 1.0, "it was asked before"
    wait_until(lambda: not alive(own_pid) and not alive(child), DEADLINE, "both have ended")


def test_ctrl_c_in_the_terminal_does_not_reach_a_leashed_program(tmp_path: Path) -> None:
    with ChildProcess([sys.executable, "-c", PRINTS_ITS_PID], tmp_path / "log") as program:
        pid = first_number(tmp_path / "log")
        assert os.getsid(pid) != os.getsid(0)
        assert program.poll() is None
    assert program.poll() == 128 + signal.SIGTERM
