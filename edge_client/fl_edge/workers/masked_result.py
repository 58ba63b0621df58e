"""Masks the result of a training, in the worker: what leaves it says nothing without the shares of other members.

The delta, the seeds of the masks and the numbers of the training stay here, and are written nowhere.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from fl_edge.errors import CancelledError, UnmaskableError
from fl_edge.session.masking import Trust, checked_plan, noise_deviation
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.tallies import tallies_of
from fl_edge.workers.jobs import Masked, Masking, TrainOutcome, Vectors
from fl_shared.masking.masked_update import Integers, mask_update
from fl_shared.masking.plan import Plan
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.tallies import NO_NUMBERS
from fl_shared.privacy.distributed_noise import NoisyIntegers
from fl_shared.privacy.gaussian_noise import KEY
from fl_shared.protocol.messages import FoldSettings, Partition, RoundPrivacy, UpdateMetrics
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.masked import MASKED
from fl_shared.tensors.fixed_point import Quantizer
from fl_shared.tensors.manifest import Manifest, magnitude


class MaskedRound:
    """A masked round, as the edge of a training job takes part in it. ``partition``: the one that the job trains on.

    Raises `UnacceptablePlan` before anything is trained, if the edge takes no part in such a round.
    """

    def __init__(self, masking: Masking, client: str, partition: Partition, manifest: Manifest) -> None:
        self._keys = RunKeys.from_private(masking.mask, masking.agree)
        trust = Trust(masking.enrolment)
        selected = masking.selected
        self._plan: Plan = checked_plan(
            selected, partition, manifest.digest, manifest.values, client, self._keys, trust, time.time()
        )
        self._fold: FoldSettings = selected.fold
        self._privacy: RoundPrivacy | None = selected.privacy
        self._client = client
        self._manifest = manifest

    def outcome(
        self,
        update: TrainedUpdate,
        primary: str,
        pool: MemoryPool,
        cancelled: Callable[[], bool],
    ) -> TrainOutcome:
        """Returns the masked update. ``primary``: the metric that is in the tallies.

        Raises `UnmaskableError` for what cannot be masked, and ``CancelledError``.
        """
        largest = self._check(update)
        encoding = MASKED[self._plan.bits]
        delta = pool.lend(encoding.sizes(self._plan.values)[0])
        tallies = NO_NUMBERS if self._privacy is not None else tallies_of(update, primary)

        def check() -> None:
            if cancelled():
                raise CancelledError("cancelled while the update was masked")

        made = mask_update(
            self._plan,
            self._client,
            self._keys,
            self._integers(update, largest),
            tallies.integers(),
            secrets.token_bytes,
            delta.view,
            check,
        )
        masked = Masked(self._plan.digest.hex(), made.body, bytes(made.tallies), made.shares)
        own = {name: FLOAT32.encode(one, 0) for name, one in update.own.items()}
        return TrainOutcome(
            self._manifest, delta, made.digest, min(1, update.examples), 0, 0.0, UpdateMetrics(), encoding.name,
            own=Vectors.of(own) if own else None, masked=masked,
        )  # fmt: skip

    def _integers(self, update: TrainedUpdate, largest: float) -> Integers:
        """Returns what is masked: the weighted values, or, in a private round, clipped ones with noise."""
        places, privacy = self._fold.scale_bits, self._privacy
        if privacy is None:
            return Quantizer(update.delta, update.examples * 2.0**places, largest)
        deviation = noise_deviation(privacy, self._plan, places)
        return NoisyIntegers(update.delta, privacy.clip, places, deviation, secrets.token_bytes(KEY))

    def _check(self, update: TrainedUpdate) -> float:
        """Returns the largest magnitude of a value; 0 in a private round, where it does not matter.

        Raises `UnmaskableError` for what the sum of a masked round has no room for: nobody else can see it.
        """
        if update.sections:
            names = ", ".join(update.sections)
            raise UnmaskableError(f"a masked update has no sections but its delta, and this one has {names}")
        if self._privacy is not None:  # it is clipped, and its examples do not count
            return 0.0
        if update.examples > self._fold.max_examples:
            raise UnmaskableError(
                f"this edge has more than {self._fold.max_examples} examples, which cannot be masked (--max-examples)"
            )
        most, largest, start = self._fold.max_delta, 0.0, 0
        for array in self._manifest.arrays:
            largest = max(largest, magnitude(update.delta[start : start + array.values]))
            if largest > most:
                raise UnmaskableError(
                    f"array {array.name!r}: a value has changed by more than {most:g}: it cannot be masked "
                    "(--max-delta)"
                )
            start += array.values
        return largest
