"""What an edge does in masked rounds, without its session: the code that edges run, in the process of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session.effects import WorkOutAnswer
from fl_edge.session.work import Refusal, Shares
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.training.executor import TrainedUpdate
from fl_edge.workers.masked_result import MaskedRound
from fl_shared.protocol import messages as m
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.manifest import Manifest, Vector


class Member:
    """The member ``client`` of masked rounds, which has its keys in ``directory``; the model has this ``manifest``."""

    def __init__(self, client: str, directory: Path, manifest: Manifest) -> None:
        directory.mkdir(parents=True)
        self._client = client
        self._manifest = manifest
        self._member = MaskedMember(client, RunKeysFile(directory, client))
        self._partition: m.Partition | None = None
        self._pool = MemoryPool()
        self._round: tuple[m.Selected, str] | None = None
        """The newest round that it has masked for, and the body of its update."""

    def keys(self, admitted: m.Admitted) -> str:
        """The keys of its registration for the run that has admitted it."""
        self._partition = admitted.partition
        return self._member.make_keys(admitted.run, 0.0).keys

    def masked(self, selected: m.Selected, delta: Vector) -> dict[str, Any]:
        """Clips the update, adds this edge's noise, and masks it; returns the fields of `messages.Update`."""
        assert self._partition is not None, "it is admitted"
        masking = self._member.masking(selected, self._partition, self._manifest)
        assert masking is not None, "the round is masked"
        update = TrainedUpdate(delta, examples=1, steps=1, seconds=0.0, metrics=m.UpdateMetrics())
        this = MaskedRound(masking, self._client, self._partition, self._manifest)
        made = this.outcome(update, "accuracy", self._pool, lambda: False)
        assert made.masked is not None, "it is masked"
        self._round = selected, made.masked.body
        sections = tuple(
            m.Section(
                name=one.name, encoding=one.encoding, manifest=one.manifest.digest, data=bytes(one.data)
            )
            for one in made.update_sections()
        )
        return {
            "examples": made.examples, "steps": 0, "seconds": 0.0, "plan": made.masked.plan, "digest": made.digest,
            "sections": sections,
        }  # fmt: skip

    def answer(self, asked: m.Closing | m.Reveal, scope: dict[str, Any]) -> m.Message:
        """Signs the set of updates, or opens it; ``scope``: the envelope, client and session of the answer."""
        assert self._round is not None, "it has masked an update"
        assert self._partition is not None, "it is admitted"
        (selected, body), manifest = self._round, self._manifest
        effect = WorkOutAnswer(asked, selected, self._partition, manifest.digest, manifest.values, body)
        found = self._member.answer(effect, 0.0).answer
        common = {**scope, "round": asked.round, "closing": found.closing}
        match found:
            case Refusal(reason=reason, detail=detail):
                raise AssertionError(f"{self._client} declines: {reason}: {detail}")
            case Shares(digest=digest, shares=shares, unopened=unopened):
                return m.Opened(**common, digest=digest, shares=shares, unopened=unopened)
            case _:
                return m.Agreed(**common, signature=found.signature)
