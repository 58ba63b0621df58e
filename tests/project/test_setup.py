"""The set-up: which build of torch it takes. In place of pip is a program that says what it is told."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Makes environments of itself, says what pip is told, and is Python in all else.
INTERPRETER = """#!/bin/sh
case "$*" in
    "-m venv "*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    "-m pip "*)
        shift 2
        echo "pip $*"
        case "$*" in *"$FAILS"*) exit 1 ;; esac
        case "$*" in *--requirement*) cat .venv/.torch-requirements ;; esac ;;
    *) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def set_up(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a copy of ``setup.sh`` in a directory without ``.venv``, and returns the lines that it wrote."""
    (tmp_path / "clone/scripts").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in ("mosquitto", "mosquitto_pub", "mosquitto_sub", "uname", "python"):
        program = tmp_path / "bin" / name
        program.write_text(
            INTERPRETER.format(python=sys.executable) if name == "python" else "#!/bin/sh\necho Linux\n"
        )
        program.chmod(0o755)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")

    def run(index: str, *, device: str = "/nowhere", fails: str = "nothing", **environment: str) -> list[str]:
        script = (ROOT / "scripts/setup.sh").read_text()
        for name, value in (
            ("CPU_INDEX", index),
            ("CPU_INDEX_TIMEOUT", "1"),
            ("NVIDIA_DEVICES", f'"{device}"'),
        ):
            old = next(line for line in script.splitlines() if line.startswith(f"{name}="))
            script = script.replace(old, f"{name}={value}")
        (tmp_path / "clone/scripts/setup.sh").write_text(script)
        told = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        told |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHON": str(tmp_path / "bin/python")}
        told |= {"TORCH_INDEX": "", "FAILS": fails, **environment}
        done = subprocess.run(
            ["sh", "scripts/setup.sh"],
            cwd=tmp_path / "clone",
            env=told,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


@pytest.fixture
def index() -> Iterator[str]:
    """The address of a web server that has every package."""

    class Everything(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Everything)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    server.shutdown()
    server.server_close()
    thread.join(5)


WHOLE = "pip install --editable .[edge,report]"


def test_without_an_nvidia_device_the_cpu_build_is_taken(
    set_up: Callable[..., list[str]], index: str
) -> None:
    lines = set_up(index)
    assert "==> no NVIDIA device: taking the CPU build of torch" in lines
    at = lines.index(f"pip install --index-url {index} --requirement .venv/.torch-requirements")
    assert lines[at + 1].startswith("torch>=")
    assert "torchvision>=0.19" in lines[at : lines.index(WHOLE)]


@pytest.mark.parametrize("answer", ["refused", "silent"])
def test_an_index_that_does_not_answer_is_not_waited_for(
    set_up: Callable[..., list[str]], answer: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if answer == "silent" else 9
        lines = set_up(f"http://127.0.0.1:{port}")
    assert f"==> no NVIDIA device, but http://127.0.0.1:{port} did not answer within 1 s:" in lines
    assert [line for line in lines if line.startswith("pip ")] == [WHOLE]


def test_with_an_nvidia_device_torch_has_cuda(
    set_up: Callable[..., list[str]], index: str, tmp_path: Path
) -> None:
    (tmp_path / "nvidia0").touch()
    lines = set_up(index, device=f"{tmp_path}/nvidia[0-9]* /nowhere")
    assert "==> this machine has an NVIDIA device: taking PyPI's torch, with several GB of CUDA" in lines
    assert [line for line in lines if line.startswith("pip ")] == [WHOLE.replace("edge", "edge-cuda")]


def test_an_index_that_lacks_the_build_is_no_reason_to_stop(
    set_up: Callable[..., list[str]], index: str
) -> None:
    lines = set_up(index, fails=index)
    assert "==> that failed: taking PyPI's torch" in lines
    assert WHOLE in lines


def test_an_index_that_the_user_names_is_taken_unasked(set_up: Callable[..., list[str]], index: str) -> None:
    lines = set_up("http://127.0.0.1:9", TORCH_INDEX=f"{index}/own")
    pip = [line for line in lines if line.startswith("pip ")]
    assert pip == [f"pip install --index-url {index}/own --requirement .venv/.torch-requirements", WHOLE]
