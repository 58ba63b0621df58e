"""Results of edges come from the updates of versions, and a prediction needs edges that stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_mqtt.library.result import EdgeResults, Result
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol import messages as m

BASE = m.ModelReference(version=1, digest="a" * 64)


def average(round_number: int, base: m.ModelReference | None, *examples: int) -> do.Average:
    updates = tuple(
        UpdateMetadata(
            client=str(client),
            session="s",
            round=round_number,
            base=BASE.digest,
            digest="b" * 64,
            manifest="c" * 64,
            examples=count,
            steps=1,
            size=4,
            after={"accuracy": count / 10},
        )
        for client, count in enumerate(examples)
    )
    return do.Average(round=round_number, version=round_number, base=base, contributors=updates)


def test_the_last_update_of_each_edge_counts_and_initial_weights_are_none() -> None:
    results = EdgeResults()
    results.observe((average(0, None, 1), do.WithdrawRound(0)))
    results.observe((average(1, BASE, 5, 6),))
    results.observe((average(2, BASE, 7),))
    found = {client: (one.rounds, one.examples) for client, one in results.by_client.items()}
    assert found == {"0": (2, 7), "1": (1, 6)}
    assert results.by_client["1"].after == {"accuracy": 0.6}


def prediction(**members: object) -> m.Prediction:
    return m.Prediction.model_validate(
        {"run": "r", "incarnation": 1, "seq": 1, "client": "3", "sha256": "a" * 64, "version": 2, **members}
    )


def test_requests_are_sent_in_the_form_they_have(tmp_path: Path) -> None:
    asked: list[bytes] = []
    picture = tmp_path / "picture"
    picture.write_bytes(b"\x89")
    answers = [
        prediction(label="7", probabilities={"7": 1.0}),
        prediction(output={"value": 1.5}),
        prediction(error="expected numbers"),
    ]

    def ask(payload: bytes) -> m.Prediction:
        asked.append(payload)
        return answers[len(asked) - 1]

    result = Result("finished", 1, 1.0, {}, "loss", None, tmp_path, [], {}, {}, ask)
    assert result.predict(picture) == {"label": "7", "probabilities": {"7": 1.0}}
    assert result.predict([1, 2]) == {"value": 1.5}
    with pytest.raises(RunFailed, match="edge 3 could not answer: expected numbers"):
        result.predict(b"x")
    assert asked == [b"\x89", b"[1, 2]", b"x"]
    with result:
        pass
    with pytest.raises(
        UserError, match=r"with simulate\(…, stay=True\) they stay until the result is closed"
    ):
        result.predict([1, 2])
