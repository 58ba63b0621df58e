"""What a run gives back, as plain Python and NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from numpy.typing import NDArray

from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import Failed, Finished
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.storage.checkpoint import read_arrays
from fl_aggregator.storage.run_directory import RunDirectory
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol import messages as m


@dataclass(frozen=True, slots=True)
class EdgeResult:
    """An edge's part in a run. All but ``rounds`` is of the last round whose version has its update."""

    rounds: int
    """How many versions have an update of this edge."""
    examples: int
    """How many it trained on."""
    steps: int
    """Steps of the optimizer."""
    seconds: float
    """Of training."""
    before: dict[str, float]
    """Metrics on its holdout, of the model that it received."""
    after: dict[str, float]
    """Metrics on its holdout, of the model that it trained."""
    train: dict[str, float]
    """Metrics of the training, such as its loss."""


@dataclass(slots=True, eq=False)
class Result:
    """A run that has ended."""

    outcome: Literal["finished", "stopped"]
    """``stopped`` if somebody stopped it."""
    version: int
    """Of the newest model."""
    seconds: float
    """How long the run took."""
    metrics: dict[str, float]
    """Of the newest version that was evaluated, on ``split``."""
    primary: str
    """The metric by which versions are compared."""
    split: str | None
    """``test`` or ``holdout``; None if no version was evaluated."""
    run_dir: Path
    """The run directory."""
    history: list[dict[str, Any]] = field(repr=False)
    """A dictionary for each round, as in ``history.jsonl``."""
    model: dict[str, NDArray[Any]] = field(repr=False)
    """The newest version, arrays by name; empty without one."""
    edges: dict[str, EdgeResult] = field(repr=False)
    """The edges by their ids, since the start or the resume."""
    ask: Callable[[bytes], m.Prediction] | None = field(default=None, repr=False)
    """How `predict` asks the edges of a simulation that stays; None after they have ended."""
    alive: ExitStack = field(default_factory=ExitStack, repr=False)
    """The broker and the edges of a simulation that stays."""
    privacy: dict[str, Any] | None = None
    """What the versions have told about an edge, at most; None without differential privacy."""

    def predict(self, request: Any) -> dict[str, Any]:
        """Asks the edges of a simulation that stays for a prediction, and returns their answer.

        ``request``: bytes or the ``Path`` of a file, which are sent as they are, or anything that JSON can express.
        Raises ``RunFailed`` if no edge can answer, and ``UserError`` after the edges have ended.
        """
        if self.ask is None:
            raise UserError(
                "the edges have ended: with simulate(…, stay=True) they stay until the result is closed"
            )
        match request:
            case bytes():
                payload = request
            case Path():
                payload = request.read_bytes()
            case _:
                payload = json.dumps(request).encode()
        answer = self.ask(payload)
        if answer.error is not None:
            raise RunFailed(f"edge {answer.client} could not answer: {answer.error}")
        classes = {"label": answer.label, "probabilities": answer.probabilities}
        return {name: value for name, value in classes.items() if value is not None} | (answer.output or {})

    def close(self) -> None:
        """Ends the edges and the broker, if they still run. May be called more than once."""
        self.ask = None
        self.alive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EdgeResults:
    """Collects the results of edges from the effects of a run."""

    def __init__(self) -> None:
        self.by_client: dict[str, EdgeResult] = {}

    def observe(self, effects: tuple[do.Effect, ...]) -> None:
        """Takes the updates of which a version is made. The initial weights are no update."""
        for effect in effects:
            if isinstance(effect, do.Average) and effect.base is not None:
                for update in effect.contributors:
                    self.by_client[update.client] = self._with(update)

    def _with(self, update: UpdateMetadata) -> EdgeResult:
        earlier = self.by_client.get(update.client)
        return EdgeResult(
            rounds=1 if earlier is None else earlier.rounds + 1,
            examples=update.examples,
            steps=update.steps,
            seconds=update.seconds,
            before=dict(update.before),
            after=dict(update.after),
            train=dict(update.train),
        )


def result_of(outcome: Outcome, directory: RunDirectory, edges: Mapping[str, EdgeResult]) -> Result:
    """Returns the result of a run. Raises ``RunFailed`` or ``UserError`` for one that has failed."""
    state = outcome.state
    if isinstance(state.phase, Failed):
        if state.failed_by_user:
            raise UserError(state.phase.detail)
        error = RunFailed(state.phase.detail)
        error.add_note(f"the run is in {directory.path}")
        raise error
    model = directory.checkpoints.model_path
    return Result(
        outcome="finished" if isinstance(state.phase, Finished) else "stopped",
        version=state.version,
        seconds=outcome.seconds,
        metrics=dict(state.metrics),
        primary=state.primary.name,
        split=state.split,
        run_dir=directory.path,
        history=list(directory.history()),
        model=read_arrays(model)[1] if model.exists() else {},
        edges=dict(edges),
        privacy=None if state.privacy is None else state.privacy.model_dump(),
    )
