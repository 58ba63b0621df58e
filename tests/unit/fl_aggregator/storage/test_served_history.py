"""The history of served versions: what is served, and how it is rolled back."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.storage.served_history import LookedAt, ServedHistory, now
from fl_shared.errors import UserError


@pytest.fixture(name="history")
def _history(tmp_path: Path) -> ServedHistory:
    history = ServedHistory(tmp_path)
    for number, why in ((1, "first"), (2, "better"), (3, "better")):
        model = tmp_path / "model.safetensors"
        model.write_bytes(b"weights %d" % number)
        assert history.serve(model, "first" if why == "first" else "better").version == number
    return history


def served(history: ServedHistory) -> list[int]:
    return [line.version for line in history.versions()]


def test_an_earlier_version_is_served_again_with_its_own_file(history: ServedHistory) -> None:
    assert history.roll_back(None).version == 2
    assert history.roll_back(1).version == 1
    assert served(history) == [1, 2, 3, 2, 1]
    assert history.checked_model(history.versions()[-1]).read_bytes() == b"weights 1"
    assert history.roll_back(None).version == 2, "the one that was served before"


def test_a_new_version_has_a_new_number_after_a_rollback(history: ServedHistory, tmp_path: Path) -> None:
    history.roll_back(1)
    assert history.serve(tmp_path / "model.safetensors", "better").version == 4
    assert history.model_path(3).read_bytes() == b"weights 3"


def test_a_line_that_was_not_written_to_its_end_does_not_count(history: ServedHistory) -> None:
    whole = history.path.read_bytes()
    for length in range(whole.rfind(b"\n", 0, -1) + 1, len(whole)):
        history.path.write_bytes(whole[:length])
        assert served(history) == [1, 2]
    line = LookedAt(at=now(), version=2, metric="loss", value=0.5, edges=3, outcome="good")
    history.add(line)
    assert history.lines()[-1] == line
    assert served(history) == [1, 2]


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (3, "--rollback 3: is served already"),
        (7, "--rollback 7: has not been served, expected one of 1, 2, 3"),
    ],
)
def test_versions_that_cannot_be_rolled_back_to(history: ServedHistory, version: int, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        history.roll_back(version)
    assert served(history) == [1, 2, 3]


def test_nothing_is_rolled_back_without_an_earlier_version(tmp_path: Path) -> None:
    history = ServedHistory(tmp_path)
    with pytest.raises(UserError, match="does not exist: no version has been served"):
        history.roll_back(None)
    (tmp_path / "model").write_bytes(b"weights")
    history.serve(tmp_path / "model", "first")
    with pytest.raises(UserError, match="version 1 is the only one that has been served"):
        history.roll_back(None)


def test_a_damaged_file_is_not_served(history: ServedHistory) -> None:
    history.model_path(2).write_bytes(b"other")
    with pytest.raises(UserError, match=r"version-0002.safetensors: has changed since it was served first"):
        history.roll_back(2)
    assert served(history) == [1, 2, 3]


def test_a_line_that_says_something_else_is_named(history: ServedHistory) -> None:
    history.path.write_text('{"event": "served"}\n')
    with pytest.raises(UserError, match=r"served.jsonl: line 1: served.at: Field required"):
        history.lines()
