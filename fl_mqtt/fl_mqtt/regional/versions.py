"""The versions of the run above, and what each means to the region: its sum is in it, or it is not.

The run above decides what becomes of a sum. Its result says whether the sum is in a version, and the version follows
as a model: then the region's round is committed with it. A sum that is not in it counts for nothing, so
the region's round is abandoned.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fl_aggregator.round import events as on
from fl_aggregator.round.phases import collected_round
from fl_aggregator.round.state import Run
from fl_aggregator.storage.checkpoint import Model
from fl_edge.messaging.model_store import FetchedModel
from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings.section import SectionFormat, decoded

MOST_RESULTS: Final = 16
"""Results and announcements that are remembered."""


class Version(NamedTuple):
    """A version for the region, and the event that says what it means there."""

    number: int
    model: Model
    event: on.Event


class Versions:
    """What is known of the versions of the run above; the newest is held until it is known what it means.

    ``region``: its name. Results of a run may be heard before it admits the region.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._numbers: dict[str, int] = {}
        """By digest, as announced."""
        self._results: dict[tuple[str, int], m.Result] = {}
        self._held: tuple[m.ModelReference, Model] | None = None

    def announced(self, announced: m.ModelAnnouncement) -> None:
        """Remembers which version a digest is of."""
        self._numbers[announced.digest] = announced.version
        while len(self._numbers) > MOST_RESULTS:
            self._numbers.pop(next(iter(self._numbers)))

    def number_of(self, digest: str) -> int | None:
        """Returns the number of a version; null if it is not remembered."""
        return self._numbers.get(digest)

    def heard(self, result: m.Result) -> None:
        """Remembers what became of a round."""
        self._results.pop((result.run, result.round), None)
        self._results[result.run, result.round] = result
        while len(self._results) > MOST_RESULTS:
            self._results.pop(next(iter(self._results)))

    @property
    def results(self) -> tuple[m.Result, ...]:
        """What is remembered of rounds."""
        return tuple(self._results.values())

    def end_of(self, result: m.Result) -> on.OrderEnded | None:
        """Returns what to tell the region of a round in which its sum does not count; null if it does."""
        if self._is_counted(result):
            return None
        why = result.missing.get(self._region, result.reason or "it was made without this region")
        detail = f"round {result.round} of the run above was {result.outcome}: {why}"
        return on.OrderEnded(now=0.0, round=result.round, reason=detail)

    def _is_counted(self, result: m.Result) -> bool:
        return result.outcome == "committed" and self._region in result.participants

    def hold(self, reference: m.ModelReference, fetched: FetchedModel) -> None:
        """Holds a version, unless a newer one is held."""
        section = fetched.weights
        if self._held is None or self._held[0].version < reference.version:
            form = SectionFormat.of(section.encoding, section.manifest)
            weights = decoded(form.values_in(section.data))  # a copy, since the store gives the memory up
            self._held = reference, Model(section.manifest, weights, reference.digest, section.encoding)

    def forget_held(self) -> None:
        """Holds none any more."""
        self._held = None

    def next(self, run: str | None, region: Run, *, force: bool = False) -> Version | None:
        """Returns the version that is held, once it is known whether the sum of the region's round is in it.

        ``force``: the region is to begin a round with it.
        """
        if self._held is None:
            return None
        reference, model = self._held
        collected = collected_round(region.phase)
        event: on.Event = on.VersionReceived(now=0.0, model=reference, manifest=model.manifest.digest)
        if collected is not None and collected.version == reference.version:
            result = self._results.get((run or "", collected.round))
            if result is None and not force:
                return None
            if result is not None and self._is_counted(result):
                event = on.ModelCreated(
                    now=0.0, round=collected.round, digest=reference.digest, manifest=model.manifest.digest
                )
        self._held = None
        return Version(reference.version, model, event)
