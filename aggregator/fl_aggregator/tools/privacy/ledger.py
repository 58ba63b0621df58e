"""What a private run has spent: each edge's releases, μ and ε, and each release, from the journal alone.

It locks and writes nothing, since the run may be in progress.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fl_aggregator.monitoring.views.privacy import SEES, guess_text, often_text, spent_line
from fl_aggregator.privacy.accounting import charges
from fl_aggregator.round import effects as do
from fl_aggregator.round.machine import MACHINE_VERSION
from fl_aggregator.round.state import Summary
from fl_aggregator.storage.replay import first_snapshot, replay
from fl_aggregator.storage.run_directory import RunRecord, read_run
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import epsilon_of
from fl_shared.protocol import messages as m
from fl_shared.system.text import natural_key

MAX_ROWS: Final = 20
"""Releases and edges that are shown to a person; ``--json`` has all."""


@dataclass(frozen=True, slots=True)
class Release:
    """A sum of updates that was seen, with the number ``release``.

    ``round``, ``version``, ``clip``: null if the journal was compacted since; ``version`` also if a sum was opened, and
    no version made of it. ``contributors``: how many edges' updates are in it. ``clip``, ``noise``: see
    `messages.RoundPrivacy`.
    """

    release: int
    round: int | None
    version: int | None
    clip: float | None
    noise: float
    contributors: int


@dataclass(frozen=True, slots=True)
class Charged:
    """An edge, the releases that it is in, and what they have told about it, with earlier runs of the same ledger."""

    client: str
    releases: tuple[int, ...]
    sensitivity: float
    mu: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that a run has spent. ``edges``: who has spent most first; empty if who took part is secret."""

    record: RunRecord
    spent: m.PrivacySpent
    releases: tuple[Release, ...]
    edges: tuple[Charged, ...]

    def fields(self) -> dict[str, Any]:
        """The ledger as an object for JSON."""
        plan = self.record.settings.privacy
        assert plan is not None
        return {
            "run": self.record.run,
            "task": self.record.settings.task,
            "ended": self.record.ended,
            "privacy": self.spent.model_dump(),
            "earlier_epsilon": plan.earlier_epsilon,
            "planned_epsilon": plan.planned_epsilon,
            "plan": plan.model_dump(),
            "releases": [asdict(release) for release in self.releases],
            "edges": {
                edge.client: {name: value for name, value in asdict(edge).items() if name != "client"}
                for edge in self.edges
            },
        }

    def lines(self) -> Iterator[str]:
        """The ledger as lines for a person."""
        settings, plan = self.record.settings, self.record.settings.privacy
        assert plan is not None
        yield f"run {self.record.run}: {settings.task}, {len(self.releases)} releases of {settings.rounds}"
        yield spent_line(self.spent)
        if plan.earlier:
            yield f"earlier runs with the same ledger: ε {plan.earlier_epsilon:.3g} of it"
        if not self.spent.insecure:
            guess = guess_text(self.spent.advantage)
            yield f"whoever {SEES[self.spent.against]} can guess whether one edge's data was used {guess}"
        yield often_text(plan, "releases")
        if not self.releases:
            return
        yield ""
        yield f"{'release':>9} {'round':>7} {'version':>8} {'clip':>9} {'noise':>9} {'edges':>7}"
        for one in self.releases[-MAX_ROWS:]:
            number, version = ("–" if value is None else value for value in (one.round, one.version))
            clip = "–" if one.clip is None else f"{one.clip:.4g}"
            yield f"{one.release:>9} {number:>7} {version:>8} {clip:>9} {one.noise:>9.4g} {one.contributors:>7}"
        yield from _more(len(self.releases), "earlier releases")
        yield ""
        if not self.edges:
            yield "who took part is secret: each edge has spent the same"
            return
        yield f"{'μ':>9} {'ε':>9} {'releases':>9}  edge"
        for edge in self.edges[:MAX_ROWS]:
            yield f"{edge.mu:>9.4g} {edge.epsilon:>9.4g} {len(edge.releases):>9}  {edge.client}"
        yield from _more(len(self.edges), "edges")


def _more(count: int, what: str) -> Iterator[str]:
    if count > MAX_ROWS:
        yield f"and {count - MAX_ROWS} {what}: see --json"


def read_ledger(directory: Path) -> Ledger:
    """Reads the run in ``directory``. Raises ``UserError`` if there is none, or none with differential privacy."""
    record = read_run(directory, "DIR")
    plan = record.settings.privacy
    if plan is None:
        raise UserError(
            f"DIR {directory}: run {record.run} has no differential privacy, expected one with --dp"
        )
    if record.machine != MACHINE_VERSION:
        raise UserError(
            f"DIR {directory}: run {record.run} was recorded by version {record.machine} of the round machine, this is "
            f"version {MACHINE_VERSION}: use the release of fl-mqtt that began it ({record.versions.get('fl-mqtt')})"
        )
    known: dict[int, Summary] = {}
    snapshot = first_snapshot(record)
    try:
        for snapshot, effects in replay(record, directory):
            found = [one.summary for one in effects if isinstance(one, do.WriteHistory | do.PublishResult)]
            _take(known, [*found, *(result.summary for result in snapshot.results.values())])
    except OSError as error:
        raise UserError(f"DIR {directory}: {error.strerror}: {error.filename}") from None
    state = snapshot.state
    _take(known, state.pending_summaries)
    releases, spent = state.releases, state.privacy
    assert spent is not None
    counts = Counter(number for taken in releases.taken.values() for number in taken)
    epsilon = cache(lambda mu: epsilon_of(mu, plan.delta))
    charged = {} if plan.against == "models" else charges(plan, releases.taken, releases.noises)
    edges = [
        Charged(name, releases.taken.get(name, ()), sensitivity, mu, epsilon(mu))
        for name, (sensitivity, mu) in charged.items()
    ]
    return Ledger(
        record,
        spent,
        tuple(
            [
                _release(number, known.get(number), noise, counts[number])
                for number, noise in enumerate(releases.noises, 1)
            ]
        ),
        tuple(sorted(edges, key=lambda edge: (-edge.mu, natural_key(edge.client)))),
    )


def _release(number: int, summary: Summary | None, noise: float, contributors: int) -> Release:
    if summary is None or summary.privacy is None:
        return Release(number, None, None, None, noise, contributors)
    version = None if summary.model is None else summary.model.version
    return Release(number, summary.round, version, summary.privacy.clip, noise, contributors)


def _take(known: dict[int, Summary], summaries: Iterable[Summary]) -> None:
    """Keeps, by release, the summary of the round that made it: the first one with so many releases."""
    for one in summaries:
        number = 0 if one.privacy is None else one.privacy.releases
        if number and (number not in known or one.round <= known[number].round):
            known[number] = one
