"""Devices are drawn one by one, the same each time, and come and go as their file says."""

from __future__ import annotations

import statistics
from itertools import islice, pairwise
from pathlib import Path

import pytest

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
