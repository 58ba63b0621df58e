"""Devices are drawn one by one, the same each time, and come and go as their file says."""

from __future__ import annotations

import statistics
from dataclasses import replace
from itertools import islice, pairwise, takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_mqtt.simulation.virtual.devices import Devices
from fl_mqtt.simulation.virtual.specification import read_specification
from tests.support.device_files import AVAILABILITY, CAPACITY, traced


def devices(name: str, seed: int = 0) -> Devices:
    return Devices(read_specification(name), seed)


def test_a_device_is_the_same_whoever_else_is_there() -> None:
    assert devices("phones").device("7") == devices("phones").device("7")
    assert devices("phones").device("7") != devices("phones").device("8")
    assert devices("phones", 1).device("7") != devices("phones").device("7")


def test_uniform_devices_are_alike() -> None:
    found = devices("uniform")
    assert found.device("0") == found.device("1")
    assert list(found.presence("0")) == [(0.0, True)]
    assert found.dies_at("0", 1) is None


def test_a_share_of_the_gateways_is_slow() -> None:
    speeds = [devices("gateways").device(str(n)).speed for n in range(1000)]
    assert sum(speed < 300 for speed in speeds) == pytest.approx(300, abs=60)


def test_phones_are_there_for_a_quarter_of_the_time() -> None:
    found = devices("phones")
    shares = []
    for number in range(50):
        changes = list(islice(found.presence(str(number)), 200))
        there = sum(end - start for (start, is_on), (end, _) in pairwise(changes) if is_on)
        shares.append(there / changes[-1][0])
    assert statistics.mean(shares) == pytest.approx(0.25, abs=0.04)


def test_deaths_are_as_frequent_as_the_file_says() -> None:
    found = devices("phones")
    deaths = [found.dies_at(str(n), round_number) for n in range(50) for round_number in range(50)]
    assert sum(death is not None for death in deaths) == pytest.approx(200, abs=60)
    assert all(0 <= death < 1 for death in deaths if death is not None)


def test_a_trace_says_what_a_device_is_and_repeats(tmp_path: Path) -> None:
    found = devices(traced(tmp_path, CAPACITY, AVAILABILITY))
    device = found.device("7")
    assert (device.speed, device.link.down, device.link.up) == (
        50.0,
        1000.0,
        2000.0,
    )  # [[device]] comes first
    assert list(islice(found.presence("7"), 5)) == [
        (0.0, True), (60.0, False), (100.0, True), (160.0, False), (200.0, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("trace", "changes"),
    [
        ("0,on 300,off", [(0, True)]),  # it is away for no time at all
        ("0,on 300,off 400,off", [(0, True), (300, False), (400, True), (700, False)]),
        ("0,off 100,on", [(0, False)]),
        ("0,on 20,on 40,on", [(0, True)]),
        ("0,on 50,on 100,off 200,on", [(0, True), (100, False), (200, True), (300, False)]),
        ("10,on 100,off", [(0, False), (10, True), (100, False), (110, True)]),
        ("10,off 100,on", [(0, True), (10, False), (100, True), (110, False)]),
        ("5,off", [(0, False)]),
        ("0,on", [(0, True)]),
    ],
)
def test_a_trace_repeats_with_all_its_changes_and_nothing_else(
    trace: str, changes: list[tuple[float, bool]], tmp_path: Path
) -> None:
    rows = "".join(f"7,{row}\n" for row in trace.split())
    found = devices(traced(tmp_path, CAPACITY, f"client,second,state\n{rows}"))
    assert list(islice(found.presence("7"), 4)) == changes


TRACES = st.dictionaries(st.integers(0, 20), st.booleans(), min_size=1).map(lambda rows: sorted(rows.items()))


@given(TRACES)
def test_at_each_second_the_last_row_counts_and_before_the_first_one_that_of_the_period_before(
    rows: list[tuple[float, bool]],
) -> None:
    period, until = rows[-1][0], 100
    found = Devices(replace(read_specification("uniform"), presence={"7": tuple(rows)}), 0).presence("7")
    changes = list(takewhile(lambda change: change[0] <= until, islice(found, until)))
    assert all(before[1] != after[1] for before, after in pairwise(changes))
    for at in range(until):
        phase = at % period if period else 0
        expected = [is_there for second, is_there in [(-1, rows[-1][1]), *rows] if second <= phase][-1]
        assert [is_there for second, is_there in changes if second <= at][-1] is expected, at
