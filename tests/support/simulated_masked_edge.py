"""An edge that only does sums, whose updates are masked, or not. It has no files, and makes no model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import numpy as np

from fl_shared.masking.answers import Declined, open_shares, sign_closing
from fl_shared.masking.masked_update import mask_update
from fl_shared.masking.plan import Plan, plan_of
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.tallies import NO_NUMBERS
from fl_shared.privacy.gaussian_noise import noise
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.task_spec import task_name
from fl_shared.system.base64url import decoded
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED, RAW
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support.builders import ACCURACY
from tests.support.clipped_updates import clip_to_grid
from tests.support.masked_rounds import fixed_random, keys_of, of_array

VALUES: Final = 40
MANIFEST: Final = Manifest(
    arrays=(
        ArraySpec(name="mean", shape=(10,), role="buffer"),
        ArraySpec(name="w", shape=(30,)),
    )
)
PARAMETERS_ONLY: Final = Manifest(arrays=(ArraySpec(name="w", shape=(VALUES,)),))
"""That of a model without buffers."""
MAX_DELTA: Final = 4.0


class MaskedEdge:
    """An edge. ``lost_in``: for each round, in which of ``update``, ``sign`` and ``open`` it says nothing.

    ``masked``: whether it masks its updates. It signs one set a round, and keeps which.
    """

    def __init__(self, name: str, *, masked: bool, manifest: Manifest = MANIFEST) -> None:
        self.name = name
        self.manifest = manifest
        self.masked = masked
        self.keys = keys_of(name)
        self.starts = 1
        self.lost_in: dict[int, Collection[str]] = {}
        self.signed: dict[int, str] = {}
        self.updates: dict[int, m.Update] = {}
        self.rejections: list[m.Rejected] = []
        self.refusals: list[m.Refused] = []
        self.partition: m.Partition | None = None
        self.plan: Plan | None = None
        self.answers: list[m.Message] = []
        self.integers: dict[int, Int64s] = {}
        """By round, what it has masked."""
        self.adds_noise = True
        self.wrong_tallies: dict[int, list[float]] = {}
        """By round, what it says in place of `tallies`."""
        self.tamper: Callable[[m.Message], m.Message] = lambda message: message
        """What a bad edge makes of its messages."""

    @property
    def session(self) -> str:
        return f"session-{self.name}-{self.starts}"

    def examples(self, number: int) -> int:
        return 3 + int(hashlib.sha256(f"{self.name} {number}".encode()).digest()[0]) % 40

    def delta(self, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {number}".encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=VALUES).clip(-MAX_DELTA, MAX_DELTA).astype("<f4")

    def tallies(self, number: int) -> list[float]:
        """Examples, those of the holdout, and the loss in training, both metrics before and after it."""
        return [self.examples(number), 2.0, 0.25, 0.5, 0.75, 0.125, 0.875, 0.0]

    def registration(self, admitted: m.Admitted | None = None) -> m.Registration:
        usual: dict[str, Any] = {
            "seq": 1, "client": self.name, "session": self.session, "device": f"device-{self.name}",
            "roles": ("train",), "encodings": ("f32",),
        }  # fmt: skip
        if admitted is not None:
            assert admitted.masked == self.masked
            usual |= {
                "run": admitted.run, "incarnation": admitted.incarnation, "task": task_name(admitted.task),
                "manifest": self.manifest.digest, "metrics": (ACCURACY,),
                "examples": 1 if self.masked or admitted.private else 20,
                "keys": self.keys.announce(admitted.run, self.name, None) if self.masked else None,
            }  # fmt: skip
        return m.Registration(**usual)

    def hear(self, topic: t.Topic, message: m.Message, scope: dict[str, Any]) -> Iterator[m.Message]:
        """What it says to a message. ``scope``: an envelope."""
        answer = {**scope, "client": self.name, "session": self.session}
        match message:
            case m.Admitted(client=self.name, session=self.session, examples=None):
                self.partition = message.partition
                yield self.registration(message)
            case m.Refused(client=self.name):
                self.refusals.append(message)
            case m.Rejected(client=self.name):
                self.rejections.append(message)
            case m.Selected(round=number) if self.name in (message.cohort or ()) or topic == t.WorkTopic(
                self.name
            ):
                if message.masked is not None:
                    assert self.partition is not None
                    self.plan = plan_of(message, self.partition, self.manifest.digest, VALUES)
                if "update" not in self.lost_in.get(number, ()):
                    yield self._update(message, answer)
            case m.Closing(round=number) if topic == t.UnmaskTopic(self.name):
                if "sign" not in self.lost_in.get(number, ()):
                    yield self._sign(message, answer)
            case m.Reveal(round=number) if topic == t.UnmaskTopic(self.name):
                if "open" not in self.lost_in.get(number, ()):
                    yield self._open(message, answer)
            case _:
                pass

    def _update(self, selected: m.Selected, answer: dict[str, Any]) -> m.Update:
        number, examples = selected.round, self.examples(selected.round)
        if number in self.updates:  # sent again as it was
            return self.updates[number].model_copy(update=answer)
        usual: dict[str, Any] = {
            **answer, "round": number, "base": None if selected.base is None else selected.base.digest,
            "examples": examples, "steps": 1, "seconds": 0.5,
        }  # fmt: skip
        if selected.masked is None:
            counts = self.tallies(number)
            metrics = m.UpdateMetrics(
                before={"loss": counts[3], "accuracy": counts[4]},
                after={"loss": counts[5], "accuracy": counts[6]},
                train={"loss": counts[2]},
            )
            arrays = self.manifest.arrays if selected.base is None else None
            data = self.delta(number).tobytes()
            section = m.Section(
                name="delta", encoding="f32", manifest=self.manifest.digest, arrays=arrays, data=data
            )
            return self._made(number, (section,), {**usual, "metrics": metrics})
        assert self.plan is not None
        factor = examples * 2.0**selected.fold.scale_bits
        integers = np.rint(self.delta(number).astype(np.float64) * factor).astype(np.int64)
        if selected.privacy is not None:
            integers = self._with_noise(selected, selected.privacy)
        self.integers[number] = integers.copy()
        count, holdout, train, *of_holdout = self.wrong_tallies.get(number, self.tallies(number))
        tallies = np.rint(
            [count, holdout, *(2.0**20 * one for one in (count * train, *(holdout * x for x in of_holdout)))]
        ).astype(np.int64)
        if selected.privacy is not None and number not in self.wrong_tallies:
            tallies = NO_NUMBERS.integers()
        made = mask_update(
            self.plan,
            self.name,
            self.keys,
            of_array(integers),
            tallies,
            fixed_random(f"{self.name} {number}"),
        )
        contents = {
            "delta": (MASKED[self.plan.bits].name, self.manifest.digest, bytes(made.delta)),
            "shares": (RAW.name, _bytes_manifest("shares", len(made.shares)), made.shares),
            "tallies": (MASKED[64].name, _bytes_manifest("tallies", 8), bytes(made.tallies)),
        }
        sections = tuple(
            m.Section(name=name, encoding=encoding, manifest=manifest, data=data)
            for name, (encoding, manifest, data) in contents.items()
        )
        usual |= {"examples": 1, "steps": 0, "seconds": 0.0, "plan": self.plan.digest.hex()}
        return self._made(number, sections, {**usual, "metrics": m.UpdateMetrics()})

    def _with_noise(self, selected: m.Selected, privacy: m.RoundPrivacy) -> Int64s:
        assert selected.masked is not None
        places, masked = selected.fold.scale_bits, selected.masked
        integers = clip_to_grid(self.delta(selected.round), privacy.clip, places)
        if self.adds_noise:
            key = hashlib.sha256(f"noise {self.name} {selected.round}".encode()).digest()
            part = privacy.noise * privacy.clip / math.sqrt(masked.least - masked.colluders)
            integers += noise([(key, part * 2.0**places)], 0, VALUES)
        return integers

    def _made(self, number: int, sections: tuple[m.Section, ...], usual: dict[str, Any]) -> m.Update:
        digest = content_digest([(s.name, s.encoding, s.manifest, s.data) for s in sections])
        self.updates[number] = m.Update(**usual, digest=digest, sections=sections)
        return self.updates[number]

    def _sign(self, closing: m.Closing, answer: dict[str, Any]) -> m.Message:
        assert self.plan is not None
        digest = self.plan.closing(closing.included).hex()
        if self.signed.setdefault(closing.round, digest) != digest:
            return m.Declined(
                **answer, round=closing.round, closing=digest, reason="another-set", detail="signed another"
            )
        try:
            signature = sign_closing(self.plan, self.name, self.keys, closing)
        except Declined as error:
            return m.Declined(
                **answer, round=closing.round, closing=digest, reason=error.reason, detail=str(error)
            )
        return m.Agreed(**answer, round=closing.round, closing=digest, signature=signature)

    def _open(self, reveal: m.Reveal, answer: dict[str, Any]) -> m.Message:
        assert self.plan is not None
        digest = self.plan.closing(reveal.included).hex()
        assert self.signed.setdefault(reveal.round, digest) == digest, "asked to open two sets"
        signatures, packages = _decoded(reveal.signatures), _decoded(reveal.packages)
        try:
            opened = open_shares(self.plan, self.name, self.keys, reveal, signatures, packages)
        except Declined as error:
            return m.Declined(
                **answer, round=reveal.round, closing=digest, reason=error.reason, detail=str(error)
            )
        return m.Opened(
            **answer, round=reveal.round, closing=digest, digest=hashlib.sha256(opened.shares).hexdigest(),
            shares=opened.shares, unopened=opened.unopened,
        )  # fmt: skip


def _bytes_manifest(name: str, values: int) -> str:
    return Manifest(arrays=(ArraySpec(name=name, shape=(values,)),)).digest


def _decoded(texts: dict[str, str]) -> dict[str, bytes]:
    return {name: decoded(text) for name, text in texts.items()}


def new_keys(edge: MaskedEdge) -> None:
    """The edge has lost its state directory."""
    edge.keys = RunKeys.generate(fixed_random(f"new {edge.name}"))
