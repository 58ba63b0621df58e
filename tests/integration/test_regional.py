"""Regional aggregators over real brokers: the version has the bits of the flat run."""

from __future__ import annotations

from contextlib import ExitStack
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
    directory: Path, name: str, upstream: str, downstream: str, edges: int, clients: int
) -> programs.Program:
    """A regional aggregator whose region has the prefix of its name; it goes on where it was."""
    return programs.Program(
        directory / f"program-{name}", "fl-mqtt", "relay", "--id", name, "--edges", str(edges), "--clients",
        str(clients), "--upstream", upstream, "--downstream", downstream, "--downstream-prefix", name,
        "--state-dir", str(directory / f"relay-{name}"), "--wait", "120", "--grace", "120",
    )  # fmt: skip


def fleet(directory: Path, broker: str, prefix: str, ids: str) -> programs.Program:
    place = directory / f"edges-{prefix}-{ids}"
    return programs.edges(place, broker, ids, "--prefix", prefix, "--workers", "1")


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


def test_two_regions_of_three_edges_make_the_bits_of_the_flat_run(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """They have prefixes of their own at one broker. Their edges evaluate, and the run above has the pooled metrics."""
    broker = mosquitto.url
    expected = flat(tmp_path, broker, 6)
    run = stack.enter_context(programs.aggregator(tmp_path, broker, *RUN, *sizes_of(2, 3)))
    for name, ids in (("north", "0-2"), ("south", "3-5")):
        stack.enter_context(relay(tmp_path, name, broker, broker, 3, 6))
        stack.enter_context(fleet(tmp_path, broker, name, ids))
    run.ends_well(240)
    assert digest_of(tmp_path) == expected
    line = programs.history(tmp_path)[-1]
    assert line["participants"] == ["north", "south"]
    assert line["metrics"]["evaluated_examples"] == 120, "a fifth of 600"


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
