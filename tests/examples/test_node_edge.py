"""The JavaScript edge's own tests, which compare it with ``docs/vectors``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.node_edge import VECTORS, node_edge, with_packages


def test_the_vectors_of_the_protocol(tmp_path: Path) -> None:
    copy = with_packages(tmp_path)
    files = sorted(str(path.relative_to(copy)) for path in (copy / "test").glob("*.test.js"))
    done = subprocess.run(
        ["node", "--test", "--test-reporter", "spec", *files],
        cwd=copy,
        env={**os.environ, "FL_VECTORS": str(VECTORS)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fail 0" in done.stdout


def test_a_mistake_of_the_user_is_one_line(tmp_path: Path) -> None:
    copy = with_packages(tmp_path)
    for arguments, expected in (
        (("--id", "a b", "--broker", "mqtt://localhost"), "--id: a b, expected 1 to 64"),
        (("--id", "7"), "--broker: is missing"),
        (("--id", "7", "--broker", "mqtt://localhost", "--seal"), "--seal: expected --kit"),
        (("--no-such-option",), "'--no-such-option'"),
    ):
        with node_edge(copy, "edge", *arguments) as edge:
            assert edge.wait(30) == 2
        printed = edge.out + edge.err
        assert printed.startswith("node-edge: "), printed
        assert expected in printed
        assert printed.count("\n") == 1, printed
