"""Only one aggregator runs under a prefix, whatever happens to two of them (reliability, 1.10)."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.provisioned_broker import ProvisionedBroker, provisioned
from tests.support.provisioned_site import FORGER, Site
from tests.support.received import Received
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

TASK = ("--task", "synthetic-1000")
RUN = (
    *TASK, "--clients", "3", "--per-round", "3", "--quorum", "3", "--holdout", "0", "--grace", "5",
    "--wait", "60", "--deadline", "20", "--rounds",
)  # fmt: skip
ENDLESS = (*RUN, "100000")


@pytest.fixture
def broker(mosquitto: Mosquitto, edges: programs.Program) -> Mosquitto:
    """A broker of its own, since it is frozen, with three edges."""
    return mosquitto


@pytest.fixture
def edges(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[programs.Program]:
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2", *TASK) as running:
        yield running


def digests(directory: Path) -> dict[int, str]:
    """The digest of each version that the run has committed."""
    if not (directory / "run" / "history.jsonl").exists():
        return {}
    lines = programs.history(directory)
    return {line["version"]: line["digest"] for line in lines if line["version"] is not None}


def wait_for_rounds(program: programs.Program, directory: Path, more: int) -> None:
    before = len(digests(directory))
    wait_until(
        lambda: len(digests(directory)) >= before + more or not program.running(),
        60,
        f"{more} more rounds of {directory.name}",
    )
    assert program.running(), program.output


def run_id(directory: Path) -> str:
    found: str = json.loads((directory / "run" / "run.json").read_text())["run"]
    return found


def ends_superseded(program: programs.Program, by: str) -> None:
    assert program.wait(40) == 2, program.output
    assert "another aggregator has taken over under the prefix 'fl' at mqtt" in program.err
    assert f": run {by}, incarnation " in program.err, program.err
    assert "this one ends, and publishes nothing more" in program.err
    assert "Traceback" not in program.err


def stands_still(statuses: Sequence[Received]) -> bool:
    """Whether the last two say that the same round waits for the same updates."""
    last = [each.message for each in statuses if isinstance(each.message, m.Status)][-2:]
    said = [(each.phase, each.round, each.have) for each in last]
    return len(said) == 2 and said[0] == said[1] and said[0][0] == "collecting"


def stop_between_messages(one: programs.Program, broker: Mosquitto, edges: programs.Program) -> None:
    """Stops ``one`` while it waits for updates: what it had queued would leave its socket when it wakes up."""
    training = programs.workers(edges)
    with Client(broker.endpoint, "fl/status") as observer:
        programs.freeze(*training)
        observer.catch_up()
        since = len(observer.received)
        observer.wait_for(lambda _: stands_still(observer.received[since:]), "a status that says nothing new")
        one.send(signal.SIGSTOP)
    programs.thaw(*training)


def test_one_that_stood_still_gives_way_to_the_run_that_was_started_meanwhile(
    broker: Mosquitto, edges: programs.Program, tmp_path: Path
) -> None:
    with programs.aggregator(tmp_path / "one", broker.url, *ENDLESS) as one:
        wait_for_rounds(one, tmp_path / "one", 3)
        stop_between_messages(one, broker, edges)
        with programs.aggregator(tmp_path / "two", broker.url, *ENDLESS) as two:
            wait_for_rounds(two, tmp_path / "two", 3)
            first_run, second_run = run_id(tmp_path / "one"), run_id(tmp_path / "two")
            with Client(broker.endpoint, "fl/#") as seen:
                seen.catch_up()  # with what is retained of the first
                before = len(seen.received)
                one.send(signal.SIGCONT)
                ends_superseded(one, second_run)
                assert f"continue with --resume {tmp_path / 'one' / 'run'}" in one.err
                wait_for_rounds(two, tmp_path / "two", 3)
                seen.catch_up()
                said = [each for each in seen.received[before:] if first_run.encode() in each.payload]
            assert [each.topic for each in said if b'"offline"' not in each.payload] == [], said
    with (
        programs.resumed(tmp_path / "one", "--broker", broker.url) as again,
    ):
        wait_for_rounds(again, tmp_path / "one", 2)


def test_one_that_stood_still_in_the_midst_of_a_step_does_not_finish_it(
    broker: Mosquitto, tmp_path: Path
) -> None:
    one = programs.Program(
        tmp_path / "one", "tests.support.sleeping_aggregator", "start", *ENDLESS,
        "--broker", broker.url, "--keepalive", "60", "--run-dir", str(tmp_path / "one" / "run"),
    )  # fmt: skip
    with one:
        wait_until(lambda: programs.is_stopped(one.pid), 60, "the first stands still")
        with programs.aggregator(tmp_path / "two", broker.url, *ENDLESS) as two:
            wait_for_rounds(two, tmp_path / "two", 1)
            with Client(broker.endpoint, "fl/#") as seen:
                seen.catch_up()
                before = len(seen.received)
                one.send(signal.SIGCONT)
                ends_superseded(one, run_id(tmp_path / "two"))
                seen.catch_up()
            first_run = run_id(tmp_path / "one").encode()
            said = [each for each in seen.received[before:] if first_run in each.payload]
            # What it had queued before it stood still may have left its socket afterwards: the model.
            after = [
                each.topic
                for each in said
                if b'"offline"' not in each.payload and not each.topic.startswith("fl/model")
            ]
            assert after == [], said


def test_with_kits_it_believes_only_a_signed_birth(tmp_path: Path) -> None:
    """A forged one is replaced, and the run goes on; one that the same kit has signed is believed."""
    made = provisioned(tmp_path / "kits", [("0", ("train",)), ("1", ("train",)), ("forger", ("asker",))])
    with ProvisionedBroker(made, extra_acl=FORGER) as broker:
        site = Site(tmp_path, made, broker)
        one = site.aggregator("one", rounds=100_000)
        for name in ("0", "1"):
            site.edge(name)
        wait_for_rounds(one, tmp_path / "one", 2)
        forged = m.AggregatorPresence(
            state="online", session="x", run="evil", incarnation=1, started=m.MAX_COUNT
        )
        site.forger().publish("fl/aggregator", codec.encode(forged), retain=True)
        wait_for_rounds(one, tmp_path / "one", 3)
        one.send(signal.SIGSTOP)
        two = site.aggregator("two", rounds=100_000)
        wait_for_rounds(two, tmp_path / "two", 3)
        one.send(signal.SIGCONT)
        ends_superseded(one, run_id(tmp_path / "two"))
        wait_for_rounds(two, tmp_path / "two", 3)
        site.close()


@pytest.mark.long
def test_one_that_stood_still_gives_way_to_a_copy_that_was_resumed_meanwhile(
    broker: Mosquitto, tmp_path: Path
) -> None:
    with programs.aggregator(tmp_path / "one", broker.url, *ENDLESS) as one:
        wait_for_rounds(one, tmp_path / "one", 3)
        one.send(signal.SIGSTOP)
        shutil.copytree(tmp_path / "one" / "run", tmp_path / "two" / "run")
        with programs.resumed(tmp_path / "two", "--broker", broker.url) as two:
            wait_for_rounds(two, tmp_path / "two", 3)
            one.send(signal.SIGCONT)
            ends_superseded(one, run_id(tmp_path / "one"))
            wait_for_rounds(two, tmp_path / "two", 3)
    ours, theirs = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert ours.items() <= theirs.items(), "a version that only the one that ended has committed"


@pytest.mark.parametrize("kind", ["two-runs", pytest.param("two-copies", marks=pytest.mark.long)])
def test_of_two_that_start_at_the_same_moment_one_goes_on(
    kind: str, broker: Mosquitto, tmp_path: Path
) -> None:
    """The broker hangs until both have asked it for a connection."""
    places = [tmp_path / "one", tmp_path / "two"]
    if kind == "two-copies":
        with programs.aggregator(places[0], broker.url, *ENDLESS) as first:
            wait_for_rounds(first, places[0], 3)
            first.send(signal.SIGINT)
            first.wait()
        shutil.copytree(places[0] / "run", places[1] / "run")
        shared = digests(places[0])
    waiting = unaccepted(broker.port)
    programs.freeze(broker.pid)
    started = [
        programs.aggregator(place, broker.url, *ENDLESS)
        if kind == "two-runs"
        else programs.resumed(place, "--broker", broker.url)
        for place in places
    ]
    with started[0], started[1]:
        wait_until(lambda: unaccepted(broker.port) >= waiting + 2, 30, "two connections that wait")
        programs.thaw(broker.pid)
        wait_until(lambda: not all(each.running() for each in started), 40, "the end of one of them")
        (lost,) = [each for each in started if not each.running()]
        (other,) = [each for each in started if each.running()]
        place = places[started.index(other)]
        assert lost.wait() == 2, lost.output
        assert "under the prefix 'fl' at" in lost.err, lost.output
        wait_for_rounds(other, place, 3)
    if kind == "two-copies":
        assert digests(places[started.index(lost)]) == shared, "only one of them commits"


def unaccepted(port: int) -> int:
    """Established connections to a port of this machine, from the side that listens."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(1 for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01")


def test_a_copy_that_is_resumed_later_numbers_its_start_above_all_that_were_heard(
    broker: Mosquitto, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with programs.aggregator(one, broker.url, *ENDLESS) as first:
        wait_for_rounds(first, one, 2)
        first.send(signal.SIGINT)
        first.wait()
    shutil.copytree(one / "run", two / "run")
    for place in (one, two):
        with programs.resumed(place, "--broker", broker.url) as again:
            wait_for_rounds(again, place, 1)
            again.send(signal.SIGINT)
            again.wait()
    numbers = [json.loads((place / "run" / "run.json").read_text())["incarnation"] for place in (one, two)]
    assert numbers == [2, 3]
