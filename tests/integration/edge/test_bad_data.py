"""An edge whose own data is wrong says so in one line and ends with 2, and the others do not notice.

Its user has not named the task, so its data is read once the run is known.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.picture_folders import fill
from tests.support.tables import patients
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(240)]

Case = tuple[Mapping[str, bytes], str]
"""The files of an edge, and what it says after the path of its data."""

GOOD = ("good-0", "good-1")
ROWS = b"".join(b"%d,%d,Male,%s\n" % (40 + i, 120 + i, (b"ill", b"well")[i % 2]) for i in range(20))
HEADER = b"age,pressure,sex,state\n"
TABULAR: dict[str, Case] = {
    "empty": ({"a.csv": b""}, "/a.csv: is empty, expected a row of column names"),
    "target": (
        {"a.csv": b"age,pressure,sex,stat\n" + ROWS},
        "/a.csv: row 1: column 'state' (target) is missing; the file has: age, pressure, sex, stat",
    ),
    "class": (
        {"a.csv": HEADER + ROWS + b"40,120,Male,dead\n"},
        "/a.csv: row 22: column 'state': the class 'dead' is unknown to the run",
    ),
    "number": (
        {"a.csv": HEADER + ROWS + b"old,120,Male,ill\n"},
        "/a.csv: row 22, column 'age': 'old' is no number",
    ),
    "columns": (
        {"a.csv": b"age,sex,state\n" + ROWS.replace(b",1", b"1")},
        "/a.csv: row 1: column 'pressure' is missing; the run has: age, pressure, sex",
    ),
    "more": (
        {"a.csv": HEADER.replace(b"\n", b",zip\n") + ROWS.replace(b"\n", b",8001\n")},
        "/a.csv: row 1: column 'zip' is not in the run, which has: age, pressure, sex",
    ),
    "parquet": ({"a.parquet": b"PAR2" + ROWS}, "/a.parquet: is no Parquet file: it does not begin with PAR1"),
    "gaps": (
        {"a.csv": HEADER + b"40,,Male,ill\n41,,Male,well\n"},
        "/a.csv: no example is left without the 2 that have gaps: column 'pressure' has 2",
    ),
}
SERIES: dict[str, Case] = {
    "empty": ({"a.csv": b""}, "/a.csv: is empty"),
    "number": (
        {"a.csv": b"power,flow\n" + b"1,2\n" * 60 + b"1,fast\n"},
        "/a.csv: row 62, column 'flow': 'fast' is no number",
    ),
    "columns": (
        {"a.csv": b"power,press\n" + b"1,2\n" * 60},
        "/a.csv: row 1: column 'flow' is missing; the run has: flow, power",
    ),
    "gaps": ({"a.csv": b"power,flow\n" + b"1,2\n,2\n" * 30}, "/a.csv: no window of 8 rows is left"),
}


def trains_without_them(
    stack: ExitStack,
    directory: Path,
    url: str,
    cases: Mapping[str, Case],
    arguments: tuple[str, ...],
    *run: str,
) -> None:
    """Starts an edge for each case and two good ones, whose data are there already, and then their aggregator."""
    for name, (files, _) in cases.items():
        for file, content in files.items():
            path = directory / name / "data" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    edges = {
        name: stack.enter_context(
            programs.edges(directory / name, url, name, "--data", str(directory / name / "data"), *arguments)
        )
        for name in (*GOOD, *cases)
    }
    for edge in edges.values():
        wait_until(lambda edge=edge: "connected to" in edge.err, 60, "the edge is there")  # type: ignore[misc]
    # All are registered long before the wait is over, and a good edge is waited for while it loads its data.
    prefix = ("--prefix", arguments[arguments.index("--prefix") + 1])
    ours = stack.enter_context(
        programs.aggregator(
            directory, url, *prefix, *run, "--partition", "own", "--clients", str(len(edges)), "--per-round", "2",
            "--rounds", "100000", "--quorum", "2", "--wait", "12",
        )
    )  # fmt: skip
    for name, (_, words) in cases.items():
        problem = f"{directory / name / 'data'}{words}"
        assert edges[name].wait() == 2, edges[name].output
        said = [line for line in edges[name].err.splitlines() if problem in line]
        assert len(said) == 1, edges[name].output
        assert "Traceback" not in edges[name].err
        told = f"edge {name} does not take part: {problem}"[:150]
        wait_until(lambda told=told: told in ours.err, 30, f"the aggregator says: {told}")  # type: ignore[misc]
    before = len(programs.history(directory))
    wait_until(lambda: len(programs.history(directory)) > before, 60, "a version after that")
    ours.send(signal.SIGINT)
    ours.wait()
    assert {tuple(sorted(line["participants"])) for line in programs.history(directory)} == {GOOD}
    for name in GOOD:
        assert edges[name].running()
        assert "does not take part" not in edges[name].err


def test_tables_that_are_wrong(shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path) -> None:
    for seed, name in enumerate(GOOD):
        patients(tmp_path / name / "data" / "site.csv", seed)
    task = ("--task", "tabular", "--task-option", "target=state", "--task-option", "missing=drop")
    trains_without_them(
        stack, tmp_path, shared_mosquitto.url, TABULAR, ("--light", "--prefix", "bad/tabular"), *task
    )


@pytest.mark.long
def test_series_that_are_wrong(shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path) -> None:
    for name in GOOD:
        (tmp_path / name / "data").mkdir(parents=True)
        lines = "".join(f"{i % 5},{i % 7}\n" for i in range(100))
        (tmp_path / name / "data" / "a.csv").write_text("power,flow\n" + lines)
    task = ("--task", "series", "--task-option", "goal=anomaly", "--task-option", "window=8")
    trains_without_them(
        stack, tmp_path, shared_mosquitto.url, SERIES, ("--light", "--prefix", "bad/series"), *task
    )


@pytest.mark.long
def test_pictures_that_are_wrong(shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path) -> None:
    for name in (*GOOD, "picture", "class"):
        fill(tmp_path / name / "data", "red", "green")
    blue = (tmp_path / "class" / "data" / "red" / "0.png").read_bytes()
    cases: dict[str, Case] = {
        "picture": ({"red/5.png": b""}, "/red/5.png: is empty"),
        "class": ({"blue/0.png": blue}, ": class 'blue' is not in the run; the run has: green, red"),
    }
    task = ("--task", "images", "--task-option", "side=16")
    trains_without_them(stack, tmp_path, shared_mosquitto.url, cases, ("--prefix", "bad/images"), *task)
