"""Device files: presets can be read, and every mistake is named with its file, line, key and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_mqtt.simulation.virtual.specification import preset_names, read_specification
from fl_shared.errors import UserError
from tests.support.device_files import AVAILABILITY, CAPACITY, GOOD, traced


@pytest.mark.parametrize("name", preset_names())
def test_presets_can_be_read(name: str) -> None:
    assert read_specification(name).file.speed.median > 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "median = 100.0",
            "median = 0.0",
            "devices.toml, line 2: speed.median = 0.0: input should be greater than 0",
        ),
        ("median = 100.0", "mean = 1", "line 2: speed.mean is unknown"),
        ("median = 100.0\n", "", "line 1: speed.median is missing"),
        ("share = 0.3", "share = 3", "line 3: speed.slow.share = 3: input should be less than or equal to 1"),
        ("[up]", "[upp]", "line 6: upp is unknown"),
        (
            'client = "8"',
            'client = "8"\nspeed = "fast"',
            "line 13: device.1.speed = 'fast': input should be a valid",
        ),
        ('client = "8"', 'client = "7"', "line 12: device.1.client = '7': it is named twice, expected once"),
        ("[speed]", "[speed", "at line 1"),
        (
            "[[device]]",
            "[availability]\non = 0.5\n[[device]]",
            "line 9: availability.on = 0.5: input should be",
        ),
        (
            "[[device]]",
            "[availability]\noff = 60.0\n[[device]]",
            "line 9: availability.off has no effect without availability.on, expected both",
        ),
        (
            "[[device]]",
            "[availability]\ndrop = 0.1\ndaily = { amplitude = 0.5 }\n[[device]]",
            "line 10: availability.daily has no effect without availability.on, expected both",
        ),
        (
            "[[device]]",
            "[availability]\non = 60.0\ndaily = { peak = 5.0 }\n[[device]]",
            "line 10: availability.daily.amplitude is missing",
        ),
        ("[[device]]", '[trace]\ncapacity = "a\\u0000b"\n[[device]]', "line 9: trace.capacity = 'a\\x00b': "),
        (
            "[[device]]",
            '[trace]\ncapacity = "none.csv"\n[[device]]',
            "line 9: trace.capacity = 'none.csv': No such file or directory",
        ),
        ("median = 100.0", "median = nan", "line 2: speed.median = nan: input should be"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError) as raised:
        read_specification(str(path))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="no file 'fast'; expected a file, or one of: uniform, silos"):
        read_specification("fast")


def test_traces_are_read(tmp_path: Path) -> None:
    found = read_specification(traced(tmp_path, CAPACITY, AVAILABILITY))
    assert found.capacity == {"7": (12.5, 1000.0, 2000.0)}
    assert found.presence == {"7": ((0.0, True), (60.0, False), (100.0, True))}


@pytest.mark.parametrize(
    ("capacity", "availability", "said"),
    [
        (
            "client,speed\n",
            AVAILABILITY,
            "capacity.csv, line 1: 'client,speed', expected client,examples_per",
        ),
        (CAPACITY + "8,1,1\n", AVAILABILITY, "capacity.csv, line 3: 3 values, expected 4"),
        (
            CAPACITY + "8,0,1,1\n",
            AVAILABILITY,
            "line 3: examples_per_second = '0': expected a number above 0",
        ),
        (
            CAPACITY,
            AVAILABILITY + "7,100,off\n",
            "availability.csv, line 5: second = '100': expected 101 to 1e15, at least 1 s after the row before of",
        ),
        (CAPACITY, AVAILABILITY + "7,100.5,off\n", "line 5: second = '100.5': expected 101 to 1e15"),
        (
            CAPACITY,
            "client,second,state\n7,0,on\n7,1e-9,off\n",
            "line 3: second = '1e-9': expected 1 to 1e15",
        ),
        (CAPACITY + "7,1,1,1\n", AVAILABILITY, "capacity.csv, line 3: client = '7': it is named twice"),
        (CAPACITY + "c1,1,1,1\n", AVAILABILITY, "capacity.csv, line 3: client = 'c1': expected 0, 1, 2, …"),
        (
            CAPACITY,
            AVAILABILITY + "07,0,on\n",
            "availability.csv, line 5: client = '07': expected 0, 1, 2, …",
        ),
        (
            CAPACITY + f"8,{'1' * 140_000},1,1\n",
            AVAILABILITY,
            "capacity.csv, line 3: field larger than field limit (131072)",
        ),
        (CAPACITY.replace("client", "c" * 140_000), AVAILABILITY, "capacity.csv, line 1: field larger than"),
        (CAPACITY, AVAILABILITY + "7,200,away\n", "line 5: state = 'away': expected on or off"),
        (CAPACITY, AVAILABILITY + "7,soon,on\n", "line 5: second = 'soon': expected a number from 0"),
    ],
)
def test_a_mistake_in_a_trace_is_named(capacity: str, availability: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        read_specification(traced(tmp_path, capacity, availability))
    assert said in str(raised.value)


def test_a_change_of_any_file_is_noticed(tmp_path: Path) -> None:
    path = traced(tmp_path, CAPACITY, AVAILABILITY)
    before = read_specification(path).sha256
    assert read_specification(path).sha256 == before
    (tmp_path / "capacity.csv").write_text(CAPACITY + "8,1,1,1\n")
    assert read_specification(path).sha256 != before


def test_a_device_of_no_edge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(GOOD)
    assert len(read_specification(str(path), 9).file.device) == 2
    said = r"devices.toml, line 12: device.1.client = '8': the run has no such edge, expected one of its 8, .* 0, 1"
    with pytest.raises(UserError, match=said):
        read_specification(str(path), 8)


@pytest.mark.parametrize("key", ["capacity", "availability"])
def test_a_trace_may_have_more_clients_than_the_run_has_edges_but_not_only_others(
    key: str, tmp_path: Path
) -> None:
    rows = {"capacity": CAPACITY + "100,1,1,1\n", "availability": AVAILABILITY + "100,0,on\n"}
    path = Path(traced(tmp_path, **rows))
    assert read_specification(str(path), 9).capacity.keys() == {"7", "100"}
    path.write_text(
        f'[speed]\nmedian = 1.0\n[down]\nmedian = 1.0\n[up]\nmedian = 1.0\n[trace]\n{key} = "{key}.csv"\n'
    )
    said = (
        rf"line 8: trace.{key} = '{key}.csv': it has no row for an edge of the run, expected one of its 7, "
    )
    with pytest.raises(UserError, match=said):
        read_specification(str(path), 7)
