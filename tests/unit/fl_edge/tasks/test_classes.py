"""What is told of classes: confusion matrices, from an edge to the history; and the labels of a simulation's parts."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round.effects import WriteHistory
from fl_aggregator.round.events import ConfusionCounts, Evaluated
from fl_aggregator.storage import journal
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.tasks import classes, scoring
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import Examples, LocalData
from fl_edge.training.torch_executor import TorchExecutor
from fl_edge.workers.jobs import EvaluateOutcome as Done
from fl_edge.workers.jobs import LoadOutcome
from fl_shared.errors import UserError
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support.builders import partition
from tests.support.pool_harness import PoolHarness, first_model
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.samples import MESSAGES
from tests.support.versions import digest_of

pytestmark = pytest.mark.edge


def some(*labels: int) -> Examples:
    return Examples(torch.zeros(len(labels), 1), torch.tensor(labels))


def test_numpy_is_given_numbers_to_count_as_indices_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # NumPy 1 refuses what it must cast with a possible loss: on 32 bits int64. Here another type stands for that.
    count = np.bincount

    def counted(numbers: Any, minlength: int) -> Any:
        assert numbers.dtype == np.intp
        return count(numbers, minlength=minlength)

    monkeypatch.setattr(np, "bincount", counted)
    labels: Any = np.array([0, 2, 2], np.int16)
    data = LocalData(Examples(np.zeros((3, 1)), labels), None)
    assert classes.count_labels("abc", data) == {"a": 1, "b": 0, "c": 2}
    matrix = classes.confusion_matrix("abc", labels, labels)
    assert matrix is not None
    assert matrix.counts == ((1, 0, 0), (0, 0, 0), (0, 0, 2))
    assert scoring.macro_f1(labels, labels, 3) == 1.0
    assert np.exp(classes.log_prior(labels, 3)).tolist() == pytest.approx([1 / 3, 1e-4, 2 / 3])


def test_a_matrix_has_true_classes_by_row() -> None:
    found = classes.confusion_matrix(
        ("a", "b", "c"), torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 2])
    )
    assert found is not None
    assert found.labels == ("a", "b", "c")
    assert found.counts == ((1, 1, 0), (0, 1, 0), (2, 0, 1))


def test_what_no_message_could_carry_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one = torch.tensor([0])
    assert classes.confusion_matrix((), one, one) is None
    assert classes.confusion_matrix([str(n) for n in range(m.MAX_CLASSES + 1)], one, one) is None
    names = [str(n) for n in range(m.MAX_CLASSES)]
    whole = classes.confusion_matrix(names, one, one)
    assert whole is not None
    assert len(whole.model_dump_json()) < classes.MAX_CONFUSION_BYTES
    long = [f"{n:064}" for n in range(m.MAX_CLASSES)]
    monkeypatch.setattr(classes, "occurrences", lambda _pairs, cells: np.full(cells, 10_000))
    assert classes.confusion_matrix(long, one, one) is None, "a hundred classes of five digits each"


def test_labels_are_counted_held_out_or_not() -> None:
    assert classes.count_labels(("a", "b"), LocalData(some(0, 0, 1), some(1))) == {"a": 2, "b": 2}
    assert classes.count_labels(("a", "b"), LocalData(some(0, 0), None)) == {"a": 2, "b": 0}
    assert classes.count_labels((), LocalData(some(0, 0), None)) == {}


@pytest.mark.usefixtures("forked_children")
def test_an_evaluation_on_the_test_split_tells_of_confusion_and_one_on_a_holdout_does_not() -> None:
    """How an edge's own labels are spread stays its secret."""
    executor = TorchExecutor(load_task("digits"), None, "cpu")
    harness = PoolHarness(1)
    try:
        loaded = harness.expect(LoadOutcome, harness.pool.load("0", "digits", partition()), timeout=60)
        assert sum(loaded.labels.values()) == loaded.examples + loaded.holdout_examples
        assert len(loaded.labels) == 10
        model = first_model()
        on_test = harness.expect(Done, harness.pool.evaluate("0", "digits", "test", None, model))
        held = harness.expect(Done, harness.pool.evaluate("0", "digits", "holdout", partition(), model))
    finally:
        harness.pool.close()
    assert held.confusion is None
    assert on_test.confusion is not None
    counts = on_test.confusion.counts
    assert sum(map(sum, counts)) == on_test.examples == 359
    assert sum(counts[i][i] for i in range(10)) / 359 == pytest.approx(on_test.task_metrics["accuracy"])
    true = torch.bincount(load_task("digits").load_test(None).labels, minlength=10).tolist()
    assert [sum(row) for row in counts] == true
    assert executor.summarize("0", None).labels == {}


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        ({"labels": ["a", "b"], "counts": [[1, 2]]}, "expected 2 rows of 2"),
        ({"labels": ["a"], "counts": [[1, 2]]}, "expected 1 rows of 1"),
        ({"labels": ["a"], "counts": [[-1]]}, "confusion.counts.0.0"),
        ({"labels": ["a"], "counts": [[7]]}, "7 in total, expected 360"),
        ({"labels": [], "counts": []}, "confusion.labels"),
        ({"labels": ["x"] * 101, "counts": [[0] * 101] * 101}, "confusion.labels"),
        ({"labels": ["a"], "counts": [[0] * 20_000]}, "confusion.counts.0"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(confusion: Any, said: str) -> None:
    """5.11."""
    fields = json.loads(codec.encode(MESSAGES["evaluation"][1])) | {"confusion": confusion}
    with pytest.raises(codec.DecodeError, match=said):
        codec.decode(t.EvaluationsTopic("evaluator"), json.dumps(fields).encode())


def test_an_evaluation_without_a_matrix_is_as_good() -> None:
    fields = json.loads(codec.encode(MESSAGES["evaluation"][1]))
    del fields["confusion"]
    found = codec.decode(t.EvaluationsTopic("evaluator"), json.dumps(fields).encode())
    assert isinstance(found, m.Evaluation)
    assert found.confusion is None


def evaluated(client: str, playbook: Playbook, confusion: ConfusionCounts | None) -> Evaluated:
    return Evaluated(
        now=playbook.now, client=client, session=playbook.session(client), version=1, digest=digest_of(1),
        split="test", examples=10, loss=0.5, metrics={"accuracy": 0.5}, confusion=confusion,
    )  # fmt: skip


def history_of(*matrices: ConfusionCounts | None) -> Any:
    """The history's matrix of a version that as many edges evaluated."""
    playbook = Playbook(clients=1, per_round=1).play("start")
    names = [f"e{n}" for n in range(len(matrices))]
    playbook.play(*(f"join {name} roles=evaluate" for name in names), "join 0", "load 0", "send 0")
    round_done(playbook)
    for name, matrix in zip(names, matrices, strict=True):
        playbook.play(evaluated(name, playbook, matrix))
    written = [e.summary for _, effects in playbook.told for e in effects if isinstance(e, WriteHistory)]
    return RoundRecord.of(written[-1], 0, 0).history_fields()["confusion"]


def test_matrices_of_several_evaluators_are_summed() -> None:
    one, two = ConfusionCounts(("a", "b"), ((3, 1), (0, 6))), ConfusionCounts(("a", "b"), ((1, 1), (2, 6)))
    assert history_of(one, two) == {"labels": ["a", "b"], "counts": [[4, 2], [2, 12]]}
    assert history_of(one, None) == {"labels": ["a", "b"], "counts": [[3, 1], [0, 6]]}
    assert history_of(None) is None
    assert history_of(one, dataclasses.replace(one, labels=("a", "c"))) is None, (
        "they are not of the same classes"
    )


def test_a_matrix_survives_the_journal(tmp_path: Path) -> None:
    event = evaluated("e", training(clients=1, per_round=1), ConfusionCounts(("a", "b"), ((3, 1), (0, 6))))
    (tmp_path / journal.FILE_NAME).write_text(json.dumps(journal.event_fields(event)) + "\n")
    assert list(journal.read_entries(tmp_path, Settings())) == [event]


def test_parts_are_written_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "parts.jsonl"
    parts = LabelCountsFile(file)
    for count in (1, 1, 2):
        parts.append("0", count, 0, {"a": count})
    parts.append("1", 3, 0, {"b": 3})
    parts.append("evaluator", 0, 0, {})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["client"], line["labels"]) for line in lines] == [
        ("0", {"a": 1}),
        ("0", {"a": 2}),
        ("1", {"b": 3}),
    ]
    LabelCountsFile(None).append("0", 1, 0, {"a": 1})
    with caplog.at_level(logging.WARNING):
        lost = LabelCountsFile(tmp_path / "lost.jsonl")
        assert not (tmp_path / "lost.jsonl").exists()
        (tmp_path / "lost.jsonl").mkdir()
        lost.append("0", 1, 0, {"a": 1})
        lost.append("1", 1, 0, {"a": 1})
    assert len(caplog.records) == 1
    assert "Is a directory" in caplog.text


def test_a_file_of_parts_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--parts-file .*/none/parts: cannot be written to: No such file"):
        LabelCountsFile(tmp_path / "none" / "parts")
