"""Makes the next model: passes updates on to their combination, and keeps the models that are in use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fl_aggregator.aggregation.combining import Combiner, State, first_state
from fl_aggregator.aggregation.masked_round import MaskedRound
from fl_aggregator.aggregation.masked_sum import MaskedSum
from fl_aggregator.aggregation.masked_validation import ExpectedMaskedUpdate
from fl_aggregator.aggregation.regional_sum import SumCaps
from fl_aggregator.aggregation.release_noise import ReleaseNoise
from fl_aggregator.aggregation.serving import make_mean
from fl_aggregator.aggregation.similarity import compare
from fl_aggregator.aggregation.strategies.parts import Strategy
from fl_aggregator.aggregation.validation import CheckedUpdate, ExpectedUpdate
from fl_aggregator.configuration.privacy import check_manifest
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import Part, Similarity, StrategyReport, Tallies, UpdateMetadata
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.initial_weights import PlainWeights
from fl_aggregator.storage.noise_keys import NoiseKeys
from fl_aggregator.storage.run_directory import RunDirectory
from fl_aggregator.storage.spool_format import SpoolFileDamaged
from fl_aggregator.storage.update_content import UpdateContent
from fl_shared.errors import RunFailed
from fl_shared.masking.plan import Plan
from fl_shared.masking.shares import SharesSection
from fl_shared.masking.unmasking import Opened
from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.section import SectionFormat, Values, decoded
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.sections import DELTA, ModelSection


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the model, and the strategy's state when it was made, which is empty before the first average."""

    model: Model
    state: State = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SummedRound:
    """What a region has for the run above: the ``sections`` of its update, and the ``parts`` of the sum.

    ``effect``: of the round, with its contributors.
    """

    effect: do.Average
    sections: tuple[ModelSection, ...]
    parts: tuple[Part, ...]


class Averager:
    """Holds what has been combined of the updates of open rounds, and the newest two models."""

    def __init__(self, settings: Settings, strategy: Strategy, directory: RunDirectory) -> None:
        self._settings = settings
        self._strategy = strategy
        self._spool = directory.spool
        self.metadata: Mapping[str, str] = {}
        """See `RunRecord.model_metadata`."""
        self._checkpoints = directory.checkpoints
        self._newest: tuple[int, Version] | None = None
        self.previous: Model | None = None
        self.served: dict[int, Model] = {}
        """The means that are served, by their last version: the newest two, if the run serves means."""
        self._expected: ExpectedUpdate | ExpectedMaskedUpdate | None = None
        self._combiners: dict[int, Combiner] = {}
        """By round; an asynchronous run collects for several at a time."""
        self._spare: Combiner | None = None
        """That of a round that is over, for the next one."""
        self._first_weights: tuple[Manifest, Vector] | None = None
        self._masked: MaskedRound | None = None
        self.tallies: Tallies | None = None
        """Of the newest average, null if its updates were not masked, or in a private run."""
        self.liars: tuple[str, ...] = ()
        """Who has given wrong shares of its masks for certain, sorted."""
        self.plain_weights: PlainWeights | None = None
        """What the user gave in place of the values of the initial weights that an edge makes."""
        self._unwritten: Version | None = None
        """The average that is not on disk yet."""
        self._noise: ReleaseNoise | None = None
        if (plan := settings.privacy) is not None and plan.mechanism == "central":
            keys = NoiseKeys(directory.path)
            self._noise = ReleaseNoise(plan, keys, settings.dp_insecure_seed)
        self._clip: float | None = None
        """Of the open round, if it changes."""
        self.next_clip: float | None = None
        """What follows from the newest average, null if it does not change."""
        self.accuracy: float | None = None
        """The noisy mean of the edges' accuracies in the newest average, null if they did not say them."""
        self.similarity: Similarity | None = None
        """Of the updates of the newest average, null if they were not compared."""
        self.report: StrategyReport | None = None
        """What the strategy says of the newest average, null in a private run."""

    @property
    def newest(self) -> Model:
        """The model of the newest version. There must be one."""
        assert self._newest is not None
        return self._newest[1].model

    @property
    def newest_version(self) -> int | None:
        """The number of the newest version, if there is one."""
        return None if self._newest is None else self._newest[0]

    def companions(self) -> dict[str, Model]:
        """Returns the vectors that edges need besides the newest model, each as a model with one section, by name."""
        assert self._newest is not None
        correct, (_, version) = self._strategy.correct, self._newest
        return {
            name: Model.of(version.model.manifest, version.state[name], name)
            for name in (() if correct is None else correct.sections)
            if name in version.state
        }

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the models of the run, if there is one."""
        return None if self._newest is None else self._newest[1].model.manifest

    def add(self, version: int, model: Model, state: State | None = None) -> str | None:
        """Writes a version to disk and keeps it in memory; the version before it is read from its file.

        Returns the digest of the strategy's state, null if it has none. Raises ``OSError`` if it cannot be written;
        nothing has changed then.
        """
        if self._settings.max_staleness and any(array.role == "buffer" for array in model.manifest.arrays):
            # The buffers of each version that an update may begin from, and one more, if the newest is made again.
            self._checkpoints.kept = max(self._checkpoints.kept, self._settings.max_staleness + 2)
        # It may fail, and is repeated then.
        digest = self._checkpoints.write(version, model, self.metadata, state)
        first = self._settings.first_served(version)
        if first is not None:
            served = make_mean(self._checkpoints, first, version, model, self.metadata)
            self.served = {number: one for number, one in self.served.items() if number == version - 1}
            self.served[version] = served
        if self._newest is not None:
            number, before = self._newest
            self.previous = self._checkpoints.memory_mapped(number, before.model)
        self._newest = (version, Version(model, state or {}))
        return digest

    def released(self, version: int) -> None:
        """Forgets the noise that no version after ``version``, which is published now, needs. Raises ``OSError``."""
        if self._noise is not None:
            self._noise.released(version)

    def restore(
        self,
        version: int,
        model: Model,
        previous: Model | None,
        state: State,
        served: Mapping[int, Model],
    ) -> None:
        """Takes over the newest version with its state and the one before it, which are all on disk already."""
        self.served = dict(served)
        self._newest = (version, Version(model, state))
        self.previous = None if previous is None else self._checkpoints.memory_mapped(version - 1, previous)

    def expected(
        self, base: m.ModelReference | None, encoding: str, plan: Plan | None = None
    ) -> ExpectedUpdate | ExpectedMaskedUpdate:
        """Returns what each update of a round with this base must contain; a null base means round 0.

        ``plan``: of a masked round.
        """
        if plan is not None:
            return ExpectedMaskedUpdate(plan, self.newest.manifest)
        if base is None:  # initial weights: with any strategy one section, without a cap
            return ExpectedUpdate((DELTA,), encoding, None, math.inf, math.inf)
        settings, is_private = self._settings, self._settings.dp is not None
        sums = None if settings.sums.needs_each else SumCaps.of(self._strategy, settings)
        # A longer update of a private run is shortened; a rejection would say something of its edge.
        caps = (math.inf, math.inf) if is_private else (settings.max_delta, settings.max_buffer)
        return ExpectedUpdate(
            self._strategy.sections, encoding, self.newest.manifest, *caps, sums, is_private
        )

    def begin_round(self, expected: ExpectedUpdate | ExpectedMaskedUpdate, clip: float | None = None) -> None:
        """Prepares for the updates of a new round, or of all rounds of an asynchronous run.

        ``clip``: of a private run, if it changes.
        """
        self._expected = expected
        self._clip = clip
        self._masked = None
        self._unwritten = None
        self._first_weights = None
        if self._combiners:  # of a round that was abandoned
            _, self._spare = self._combiners.popitem()
            self._spare.clear()
            self._combiners.clear()
        if isinstance(expected, ExpectedMaskedUpdate):
            caps, max_examples = self._masked_limits(expected.plan)
            total = MaskedSum(self._combiner_of(expected.plan.round).integers, expected.plan.bits)
            self._masked = MaskedRound(expected, max_examples, caps, total)

    def _masked_limits(self, plan: Plan) -> tuple[SumCaps, int | None]:
        """Returns what no honest sum of a masked round exceeds."""
        if self._settings.privacy is not None:
            return SumCaps.of_private(self._settings, plan), None
        caps = SumCaps.of(self._strategy, self._settings)
        assert caps is not None, "a masked run has the combination mean"
        return caps, self._settings.max_examples

    def check(self, content: UpdateContent, update: UpdateMetadata) -> CheckedUpdate:
        """Checks the content of an update, so that it can be folded. Raises ``InvalidUpdate``."""
        assert self._expected is not None, "a round is open"
        self._expected.check_plan(update.plan)
        if isinstance(self._expected, ExpectedMaskedUpdate):
            return self._expected.check(content, update.client, dict(self.shares_sections))
        return self._expected.check(content, update.edges)

    @property
    def shares_sections(self) -> dict[str, SharesSection]:
        """The shares of the accepted updates of a masked round, by client."""
        return {} if self._masked is None else self._masked.sections

    def hold_shares(self, client: str, checked: CheckedUpdate) -> None:
        """Holds the shares of an accepted update, if it is masked. For the loop's thread."""
        if checked.masked is not None:
            self.shares_sections[client] = checked.masked.shares

    def hold_opened(self, client: str, opened: Opened) -> None:
        """Holds what a member of a masked round has opened. For the loop's thread."""
        assert self._masked is not None, "a masked round"
        self._masked.opened[client] = opened

    def fold(self, update: UpdateMetadata, checked: CheckedUpdate, number: int) -> None:
        """Takes a stored update into the average of round ``number``; in round 0, copies the initial weights.

        Raises ``UserError`` if the weights that the user gave do not fit the edge's model, or if the model has values
        that a private run cannot clip.
        """
        if checked.masked is not None:
            assert self._masked is not None, "a masked round"
            self._masked.add(checked.masked)
        elif update.base is None:
            given, manifest = self.plain_weights, checked.manifest
            check_manifest(self._settings, manifest)
            self._first_weights = (
                manifest,
                decoded(checked.delta.values) if given is None else given.fit(manifest),
            )
        else:
            combiner = self._combiner_of(number)
            if checked.total is not None:
                combiner.add_sum(update, checked.total)
                return
            combiner.add(update, checked.delta.values, checked.delta.magnitude, checked.sections)

    def _combiner_of(self, number: int) -> Combiner:
        """Returns what combines the updates of a round; that of a round before, emptied, if there is one."""
        if number not in self._combiners:
            spare, self._spare = self._spare, None
            combiner = spare or Combiner(self._strategy, self.newest.manifest, self._settings)
            if self._clip is not None:
                combiner.clip = self._clip
            self._combiners[number] = combiner
        return self._combiners[number]

    def average(self, effect: do.Average) -> tuple[Model, str | None]:
        """Makes the next version and writes it to disk; returns it with the digest of the strategy's state.

        Initial weights are copied, never averaged. Raises ``OSError`` if it cannot be written; nothing is lost, and the
        call may be repeated. Raises ``RunFailed`` if an update that the strategy needs is no longer in the spool, and
        ``UnmaskFailed`` if the updates are masked, and stay so.
        """
        if self._unwritten is None:
            self._unwritten = self._next_version(effect)
        made = self._unwritten
        digest = self.add(effect.version, made.model, made.state)
        self._unwritten = None
        return made.model, digest

    def summed(self, effect: do.Average) -> SummedRound:
        """Returns the sum of a region's round; in round 0, the initial weights, as an edge has made them."""
        if effect.base is None:
            assert self._first_weights is not None
            manifest, weights = self._first_weights
            section = ModelSection(DELTA, manifest, FLOAT32.encode(weights, 0))
            return SummedRound(effect, (section,), ())
        total, parts = self._combiners[effect.round].summed()
        return SummedRound(effect, total.sections(self.newest.manifest), parts)

    def _unmask(self, effect: do.Average) -> None:
        """Combines the sum of masked updates, as if one edge had all their examples. Raises ``UnmaskFailed``.

        In a private run the edges weigh the same, and say nothing that could be shown.
        """
        assert self._masked is not None, "a masked round"
        unmasked = self._masked.unmask(effect.holders)
        self.liars = tuple(sorted(unmasked.liars))
        parts: tuple[Part, ...]
        if self._settings.privacy is None:
            self.tallies = unmasked.tallies
            parts = (Part("", unmasked.tallies.examples, 0),)
        else:
            parts = tuple([Part(update.client, 1, 0) for update in effect.contributors])
        self._combiners[effect.round].count_sum(replace(effect.contributors[0], client="", parts=parts))

    def _next_version(self, effect: do.Average) -> Version:
        self.tallies, self.liars = None, ()
        self.next_clip = self.accuracy = None
        if effect.base is None:
            assert self._first_weights is not None
            self.similarity = self.report = None
            made = Version(Model.of(*self._first_weights, encoding=self._settings.model_encoding))
            self._first_weights = None
        else:
            assert self._newest is not None
            base, expected = self.newest, self._expected
            assert expected is not None
            assert base.digest == effect.base.digest, "rounds build on the newest version"
            if effect.holders:
                self._unmask(effect)
            form = SectionFormat.of(expected.encoding, base.manifest)
            rounds = {update.client: update.round for update in effect.contributors}

            def read(client: str) -> Values:
                try:
                    content = self._spool.read(rounds[client], client)
                except (SpoolFileDamaged, FileNotFoundError) as error:
                    raise RunFailed(
                        f"round {effect.round}: the accepted update of edge {client} cannot be read again: {error}; "
                        "the run can be resumed without it"
                    ) from None
                return form.values_in(next(one.data for one in content.sections if one.name == DELTA))

            def older(number: int) -> Vector:
                try:
                    return self._checkpoints.memory_mapped(number, base).weights
                except (ValueError, FileNotFoundError) as error:
                    raise RunFailed(
                        f"version {number}, from which an update began, cannot be read again: {error}"
                    ) from None

            every = self._settings.similarity
            due = bool(every) and effect.version % every == 0
            self.similarity = compare(effect.contributors, read, base.manifest) if due else None
            state = self._newest[1].state or first_state(self._strategy, base.manifest.values)
            noise, within = None, self._combiner_of(effect.round).within_clip
            if self._noise is not None:  # before anything changes: its key may find no space on the disk
                places = self._settings.scale_bits
                noise = self._noise.of(effect, places)
                self.next_clip = self._noise.next_clip(effect, within, base.manifest.values, places)
                self.accuracy = self._noise.accuracy(effect)
            combiner = self._combiners.pop(effect.round)
            if noise is not None:
                combiner.add_noise(noise)
            weights, state = combiner.next_model(
                effect.version, base.weights, state, read, effect.heard, older
            )
            self.report = None if self._settings.dp is not None else combiner.report
            combiner.clear()
            self._spare = combiner
            made = Version(Model.of(base.manifest, weights, encoding=base.encoding), state)
        return made
