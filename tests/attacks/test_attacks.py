"""Whatever is tried, it is refused where the table says, seen as it says, and the run ends as if nothing had been."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from fl_aggregator.messaging.rejections import EXPECTED_REASONS
from tests.support import programs
from tests.support.attacks.attack import Attack, Counted, Logged
from tests.support.attacks.cluster import BAD, HONEST, MARK, ROUNDS, Cluster, Setup
from tests.support.attacks.table import ATTACKS
from tests.support.wait import DEADLINE, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(960)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The ``model_sha256`` of a run in which nobody tries anything."""
    return run("lab", tmp_path_factory.mktemp("undisturbed"), ())


@pytest.mark.parametrize(
    ("setup", "unless"),
    [
        ("end to end", ""),
        ("lab", "end to end"),
        pytest.param("lab", "", marks=pytest.mark.long),
        pytest.param("accounts", "", marks=pytest.mark.long),
    ],
)
def test_nothing_that_is_tried_changes_a_run(
    setup: Setup, unless: str, tmp_path: Path, undisturbed: str
) -> None:
    """``unless``: without the attacks that are tried in that setup, so that each is tried once every day."""
    attacks = [one for one in ATTACKS if setup in one.setups and unless not in one.setups]
    assert run(setup, tmp_path, attacks) == undisturbed


@pytest.mark.long
@pytest.mark.parametrize(
    ("setup", "attack"),
    [
        pytest.param(setup, attack, id=f"{setup}-{number}")
        for number, attack in enumerate(ATTACKS)
        for setup in attack.setups
    ],
)
def test_each_alone(setup: Setup, attack: Attack, tmp_path: Path, undisturbed: str) -> None:
    assert run(setup, tmp_path, [attack]) == undisturbed


def run(setup: Setup, directory: Path, attacks: Sequence[Attack]) -> str:
    """The digest of the model of a run that all of ``attacks`` were tried on."""
    cluster = Cluster(setup, directory)
    try:
        cluster.start()
        if attacks:
            cluster.hold()
        else:
            cluster.join()
        failed = {attack.name: why for attack in attacks if (why := attempt(cluster, attack))}
        assert not failed, "\n\n".join(f"{name}: {why}" for name, why in failed.items())
        cluster.finish(refusals(attacks))
        check_words(cluster, attacks)
        check_counts(cluster, attacks)
        check_run(cluster)
        return cluster.model()
    finally:
        cluster.close()


def attempt(cluster: Cluster, attack: Attack) -> str:
    """Why it was not refused as it should be, or nothing."""
    begun = time.monotonic()
    try:
        attack.act(cluster)
    except Exception as error:
        return f"after {time.monotonic() - begun:.1f} s: {error!r}"
    return ""


def refusals(attacks: Sequence[Attack]) -> Counter[str]:
    """How many messages of each client the aggregator refuses, at least."""
    counted: Counter[str] = Counter()
    for attack in attacks:
        for seen in attack.seen:
            if isinstance(seen, Counted) and seen.reason not in EXPECTED_REASONS:  # which a status leaves out
                counted[seen.who] += seen.times
    return counted


def is_said(program: programs.Program, words: str) -> bool:
    return words in program.err


def check_words(cluster: Cluster, attacks: Sequence[Attack]) -> None:
    edge = cluster.edges["0"]
    for attack in attacks:
        for seen in attack.seen:
            if isinstance(seen, Logged):
                wait_until(partial(is_said, edge, seen.words), DEADLINE, f"{attack.name}: {seen.words!r}")


def check_counts(cluster: Cluster, attacks: Sequence[Attack]) -> None:
    """Neither less nor more: what honest edges say is never refused."""
    wanted: Counter[tuple[str, str]] = Counter()
    at_least = set()
    for attack in attacks:
        for seen in attack.seen:
            if isinstance(seen, Counted):
                wanted[seen.who, seen.reason] += seen.times
                if seen.or_more:
                    at_least.add((seen.who, seen.reason))
    found = cluster.refused()
    for key in at_least:
        assert found.get(key, 0) >= wanted[key], key
        wanted[key] = found[key]
    assert found == dict(wanted), cluster.aggregator.err


def check_run(cluster: Cluster) -> None:
    lines = programs.history(cluster.directory)
    assert [line["outcome"] for line in lines] == ["committed"] * ROUNDS
    for line in lines:
        assert line["participants"] == list(HONEST)
        assert set(line["missing"]) <= {BAD}
    for edge in cluster.edges.values():
        assert edge.running(), edge.output
        assert "stopped: " not in edge.err
        assert "lost" not in edge.err
        assert not re.search(r"edge [012] is (offline|gone)", cluster.aggregator.err)
    for program in (cluster.aggregator, *cluster.edges.values()):
        assert "Traceback" not in program.err
        written = program.out + program.err
        assert not [sign for sign in ("\x1b", "\x9b", "\x07", "\r", "\u2028", "\u202e") if sign in written]
        assert not re.search(r"^FORGED", written, re.MULTILINE)
    assert not [one for one in cluster.observer.received if MARK in one.payload]
    for eavesdropper, may_hear in cluster.eavesdroppers:
        assert not [one.topic for one in eavesdropper.received if not may_hear.fullmatch(one.topic)]
    made = {path.name for path in cluster.directory.iterdir()}
    assert not made & {"etc", "passwd"}
