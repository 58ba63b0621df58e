"""Regional aggregators over real brokers: the version has the bits of the flat run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.crashing_runs import events
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]

RUN = (
    "--task",
    "digits-mlp",
    "--rounds",
    "2",
    "--epochs",
    "1",
    "--seed",
    "7",
    "--train-examples",
    "600",
    "--wait",
    "60",
)


def relay(
    directory: Path, name: str, upstream: str, downstream: str, edges: int, clients: int, dies: str = ""
) -> programs.Program:
    """A regional aggregator whose region has the prefix of its name; it goes on where it was.

    ``dies``: before what it kills itself, once each (`dying_relay`).
    """
    what = (
        "relay", "--id", name, "--edges", str(edges), "--quorum", str(edges), "--clients",
        str(clients), "--upstream", upstream, "--downstream", downstream, "--downstream-prefix", name,
        "--state-dir", str(directory / f"relay-{name}"), "--wait", "120", "--grace", "120",
    )  # fmt: skip
    place, deaths = directory / f"program-{name}", directory / f"deaths-{name}"
    if not dies:
        return programs.Program(place, "fl-mqtt", *what)
    deaths.mkdir(exist_ok=True)
    environment = {**os.environ, "DIES_BEFORE": dies, "DEATHS": str(deaths)}
    return programs.Program(place, "tests.support.dying_relay", *what, environment=environment)


def fleet(directory: Path, broker: str, prefix: str, ids: str) -> programs.Program:
    """Edges whose keepalive is longer than any test, so that none is lost on a slow machine."""
    place = directory / f"edges-{prefix}-{ids}"
    return programs.edges(place, broker, ids, "--prefix", prefix, "--workers", "1", "--keepalive", "600")


def ends_well_though_it_dies(run: programs.Program, start: Callable[[], programs.Program]) -> int:
    """Starts a relay again whenever it has killed itself, until the run above has ended; returns how often."""
    deaths = 0
    while True:
        with start() as one:
            wait_until(lambda: not (one.running() and run.running()), 240, "the relay dies, or the run ends")
            if not run.running():
                run.ends_well()
                return deaths
            assert one.wait() == -signal.SIGKILL, one.output
            deaths += 1


def flat(directory: Path, broker: str, edges: int, *more: str) -> str:
    """The digest of the last version of a run without regions."""
    sizes = ("--clients", str(edges), "--per-round", str(edges), "--prefix", "flat")
    with (
        fleet(directory, broker, "flat", f"0-{edges - 1}"),
        programs.aggregator(directory / "flat", broker, *RUN, *sizes, *more) as run,
    ):
        run.ends_well(240)
    return digest_of(directory / "flat")


def digest_of(directory: Path) -> str:
    made = [one for one in events(directory) if one["event"] == "ModelCreated"]
    digest: str = made[-1]["digest"]
    return digest


def sizes_of(regions: int, edges: int) -> tuple[str, ...]:
    """The options of a run with ``regions`` regions of ``edges`` edges each, all of which take part in each round."""
    count = str(regions)
    return (
        "--clients", count, "--per-round", count, "--quorum", count, "--edges-per-round", str(regions * edges),
        "--grace", "120",
    )  # fmt: skip


def test_two_regions_make_the_bits_of_the_flat_run_though_one_is_killed_in_each_phase(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """They have prefixes of their own at one broker. Their edges evaluate, and the run above has the pooled metrics.

    One relay kills itself: when a round is ordered; before it takes an update into its open round; before it has made
    its sum; and when the version with its sum has come.
    """
    broker = mosquitto.url
    dies = (
        "selecting RoundOrdered",
        "collecting UpdateStored",
        "aggregating Average",
        "aggregating ModelCreated",
    )
    expected = flat(tmp_path, broker, 6)
    run = stack.enter_context(programs.aggregator(tmp_path, broker, *RUN, *sizes_of(2, 3)))
    stack.enter_context(relay(tmp_path, "south", broker, broker, 3, 6))
    for name, ids in (("north", "0-2"), ("south", "3-5")):
        stack.enter_context(fleet(tmp_path, broker, name, ids))
    north = partial(relay, tmp_path, "north", broker, broker, 3, 6, ",".join(dies))
    assert ends_well_though_it_dies(run, north) == len(dies)
    assert digest_of(tmp_path) == expected
    line = programs.history(tmp_path)[-1]
    assert line["participants"] == ["north", "south"]
    assert line["metrics"]["evaluated_examples"] == 120, "a fifth of 600"


@pytest.mark.long
def test_a_relay_is_killed_before_each_kind_of_effect(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """The models are published in bf16."""
    broker, bf16 = mosquitto.url, ("--model-encoding", "bf16")
    expected = flat(tmp_path, broker, 4, *bf16)
    run = stack.enter_context(programs.aggregator(tmp_path, broker, *RUN, *sizes_of(2, 2), *bf16))
    stack.enter_context(relay(tmp_path, "south", broker, broker, 2, 4))
    for name, ids in (("north", "0-1"), ("south", "2-3")):
        stack.enter_context(fleet(tmp_path, broker, name, ids))
    assert ends_well_though_it_dies(run, partial(relay, tmp_path, "north", broker, broker, 2, 4, "*")) >= 12
    assert digest_of(tmp_path) == expected


@pytest.mark.long
def test_three_brokers_three_relays_and_sixty_edges_make_the_bits_of_the_flat_run(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """Each region has a broker of its own, and so has the run above. One relay dies in each phase."""
    expected = flat(tmp_path, mosquitto.url, 60)
    run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *RUN, *sizes_of(3, 20)))
    names = ("north", "south", "west")
    brokers = {}
    for number, name in enumerate(names):
        directory = tmp_path / f"broker-{name}"
        directory.mkdir()
        brokers[name] = Mosquitto(directory)
        stack.callback(brokers[name].stop)
        first = 20 * number
        stack.enter_context(fleet(tmp_path, brokers[name].url, name, f"{first}-{first + 19}"))
    for name in names[1:]:
        stack.enter_context(relay(tmp_path, name, mosquitto.url, brokers[name].url, 20, 60))
    dies = "selecting RoundOrdered,collecting UpdateStored,aggregating Average,aggregating ModelCreated"
    north = partial(relay, tmp_path, names[0], mosquitto.url, brokers[names[0]].url, 20, 60, dies)
    assert ends_well_though_it_dies(run, north) == 4
    assert digest_of(tmp_path) == expected


def test_a_region_is_refused_by_a_run_that_needs_each_update(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """Both sides say why on one line."""
    broker = mosquitto.url
    more = ("--combine", "median", "--clients", "3", "--per-round", "3", "--quorum", "3")
    run = stack.enter_context(programs.aggregator(tmp_path, broker, *RUN, *more))
    region = stack.enter_context(relay(tmp_path, "north", broker, broker, 3, 3))
    said = "a regional aggregator gives only sums of updates, but --combine median needs each update"
    wait_until(lambda: said in region.err, 30, "the region says why")
    wait_until(lambda: said in run.err, 30, "the run says why")
