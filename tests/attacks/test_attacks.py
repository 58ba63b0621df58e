"""Whatever is tried, it is refused where the table says, seen as it says, and the run ends as if nothing had been."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import programs
from tests.attacks.row import Counted, Row, Said
from tests.attacks.stage import ALL, BAD, HONEST, MARK, ROUNDS, Setup, Stage
from tests.attacks.table import ROWS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The ``model_sha256`` of a run in which nobody tries anything."""
    return run("lab", tmp_path_factory.mktemp("undisturbed"), ())


@pytest.mark.parametrize("setup", ALL)
def test_nothing_that_is_tried_changes_a_run(setup: Setup, tmp_path: Path, undisturbed: str) -> None:
    assert run(setup, tmp_path, [row for row in ROWS if setup in row.setups]) == undisturbed


@pytest.mark.long
@pytest.mark.parametrize(
    ("setup", "row"),
    [
        pytest.param(setup, row, id=f"{setup}-{number}")
        for number, row in enumerate(ROWS)
        for setup in row.setups
    ],
)
def test_each_alone(setup: Setup, row: Row, tmp_path: Path, undisturbed: str) -> None:
    assert run(setup, tmp_path, [row]) == undisturbed


def run(setup: Setup, directory: Path, rows: Sequence[Row]) -> str:
    """The digest of the model of a run that all of ``rows`` were tried on."""
    stage = Stage(setup, directory)
    try:
        stage.hold()
        failed = {row.name: why for row in rows if (why := attempt(stage, row))}
        stage.finish()
        assert not failed, "\n\n".join(f"{name}: {why}" for name, why in failed.items())
        check_words(stage, rows)
        check_counts(stage, rows)
        check_run(stage)
        return stage.model()
    finally:
        stage.close()


def attempt(stage: Stage, row: Row) -> str:
    """Why it was not refused as it should be, or nothing."""
    begun = time.monotonic()
    try:
        row.act(stage)
    except Exception as error:
        return f"after {time.monotonic() - begun:.1f} s: {error!r}"
    return ""


def check_words(stage: Stage, rows: Sequence[Row]) -> None:
    log = stage.edges["0"].err
    for row in rows:
        for seen in row.seen:
            if isinstance(seen, Said):
                assert seen.words in log, f"{row.name}: edge 0 does not say {seen.words!r}\n{log}"


def check_counts(stage: Stage, rows: Sequence[Row]) -> None:
    """Neither less nor more: what honest edges say is never refused."""
    wanted: Counter[tuple[str, str]] = Counter()
    at_least = set()
    for row in rows:
        for seen in row.seen:
            if isinstance(seen, Counted):
                wanted[seen.who, seen.reason] += seen.times
                if seen.or_more:
                    at_least.add((seen.who, seen.reason))
    found = stage.refused()
    for key in at_least:
        assert found.get(key, 0) >= wanted[key], key
        wanted[key] = found[key]
    assert found == dict(wanted), stage.aggregator.err


def check_run(stage: Stage) -> None:
    lines = programs.history(stage.directory)
    assert [line["outcome"] for line in lines] == ["committed"] * ROUNDS
    for line in lines:
        assert line["participants"] == list(HONEST)
        assert set(line["missing"]) <= {BAD}
    for edge in stage.edges.values():
        assert edge.running(), edge.output
        assert "stopped: " not in edge.err
        assert "lost" not in edge.err
        assert not re.search(r"edge [012] is (offline|gone)", stage.aggregator.err)
    for program in (stage.aggregator, *stage.edges.values()):
        assert "Traceback" not in program.err
        written = program.out + program.err
        assert not [sign for sign in ("\x1b", "\x9b", "\x07", "\r", "\u2028", "\u202e") if sign in written]
        assert not re.search(r"^FORGED", written, re.MULTILINE)
    assert not [one for one in stage.witness.heard if MARK in one.payload]
    for spy, may_hear in stage.spies:
        assert spy.heard, "it hears what is for all"
        assert not [one.topic for one in spy.heard if not may_hear.fullmatch(one.topic)]
    made = {path.name for path in stage.directory.iterdir()}
    assert not made & {"etc", "passwd"}
