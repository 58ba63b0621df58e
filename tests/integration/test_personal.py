"""``--personalize``: edges make models of their own, and answer with them when they are asked by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_aggregator.tools.report.page import page
from fl_aggregator.tools.report.reading import read_run_report
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker]

SEVEN = (Path(__file__).parents[2] / "examples" / "seven.png").read_bytes()
RUN = (
    *("--task", "digits-mlp", "--clients", "2", "--rounds", "2", "--epochs", "1", "--partition", "shards"),
    *("--deadline", "120", "--wait", "120"),
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    (tmp_path / "broker").mkdir()
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop()


def answer(broker: Mosquitto, client: str | None) -> m.Prediction:
    """What the edges answer, or this one alone. The request may be lost until an edge has the model."""
    with Client(broker.endpoint, "fl/predictions") as asker:
        for _ in range(20):
            asker.publish(t.PredictTopic(client), SEVEN)
            with contextlib.suppress(AssertionError):
                return asker.wait_for_message(m.Prediction, 3.0, version=2, error=None)
    raise AssertionError("no answer with the last version")


def round_kept(state: Path) -> int | None:
    """The round of what the edge keeps."""
    current = OwnStateFiles(state, "0").read().current
    return None if current is None else current.round


def probabilities(prediction: m.Prediction) -> dict[str, float]:
    assert prediction.probabilities is not None, prediction
    return prediction.probabilities


def test_edges_asked_by_name_answer_with_a_model_of_their_own_after_a_restart_too(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with programs.edges(tmp_path / "edges", broker.url, "0,1", "--light") as fleet:
        with programs.aggregator(tmp_path, broker.url, *RUN, "--personalize", "5") as run:
            run.ends_well()
        common, *own = (answer(broker, client) for client in (None, "0", "1"))
        programs.kill(fleet)
    assert [one.personal for one in (common, *own)] == [False, True, True]
    assert not any(one.personal_part for one in (common, *own))
    assert [one.client for one in own] == ["0", "1"]
    assert probabilities(own[0]) != probabilities(own[1]) != probabilities(common)
    with programs.edges(tmp_path / "edges", broker.url, "0,1", "--light"):
        again = answer(broker, "0")
    assert again.personal
    assert probabilities(again) == probabilities(own[0])

    first, last = programs.history(tmp_path)
    assert first["personal"] is None
    assert sorted(last["personal"]["before"]) == sorted(last["personal"]["after"]) == ["0", "1"]
    means = [sum(last["personal"][when].values()) / 2 for when in ("before", "after")]
    assert f"personal models: accuracy {means[0]:.4f} → {means[1]:.4f} (mean of 2 edges" in run.out
    with Client(broker.endpoint, "fl/round/+/edges") as watcher:
        told = watcher.wait_for_message(m.Edges, round=2, phase="finished").personal
    assert {name: score.before for name, score in told.items()} == last["personal"]["before"]
    assert {name: score.after for name, score in told.items()} == last["personal"]["after"]
    html = page([read_run_report(tmp_path / "run")])
    assert "Personal models" in html
    assert f"Mean {means[0]:.4f} before (the line), {means[1]:.4f} after." in html


def test_a_local_part_makes_answers_personal_too(tmp_path: Path, broker: Mosquitto) -> None:
    with programs.edges(tmp_path / "edges", broker.url, "0,1", "--light") as fleet:
        with programs.aggregator(tmp_path, broker.url, *RUN, "--keep-local", "fc2.*") as run:
            run.ends_well()
            assert run.err.count("keeps arrays of its model that are not shared: fc2.bias, fc2.weight") == 1
        # The last result reaches the edges after the run has ended.
        wait_until(
            lambda: round_kept(tmp_path / "edges" / "state" / "0") == 2, 60, "the edge to keep its part"
        )
        own = answer(broker, "0")
        assert own.personal
        assert own.personal_part
        assert answer(broker, None).personal, "there is no common model that is whole"
        programs.kill(fleet)
    with programs.edges(tmp_path / "edges", broker.url, "0,1", "--light"):
        again = answer(broker, "0")
    assert again.personal
    assert probabilities(again) == probabilities(own)
