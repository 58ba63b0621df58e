"""Edges as members of masked rounds, with their files, and what an aggregator asks them; without messages."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session.effects import WorkOutAnswer
from fl_edge.session.masking import Trust
from fl_edge.session.work import Answer, Refusal, Shares, Signature
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_shared.masking.plan import Plan, plan_of, threshold_of
from fl_shared.masking.run_keys import MemberCredential
from fl_shared.masking.shares import SharesSection
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support.builders import fold_settings, partition, training_request

RUN = "R"
PARTITION = partition()
MANIFEST = Manifest(arrays=(ArraySpec(name="b", shape=(2,)), ArraySpec(name="w", shape=(2, 3))))


def text_of(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class MaskedEdges:
    """The members of the rounds of one run, each with a directory below ``directory``.

    ``credentials`` and ``trust``: of their kits. ``partitions``: of those edges that have not the usual one.
    """

    directory: Path
    clients: tuple[str, ...] = ("7", "8", "9")
    credentials: Mapping[str, MemberCredential] = field(default_factory=dict)
    trust: Trust = Trust()  # noqa: RUF009  immutable
    manifest: Manifest = MANIFEST
    partitions: dict[str, m.Partition] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for client in self.clients:
            (self.directory / client).mkdir(parents=True, exist_ok=True)
            self.keys[client] = self.member(client).make_keys(RUN, 0.0).keys

    def member(self, client: str) -> MaskedMember:
        """The edge as it is after a start of its program."""
        file = RunKeysFile(self.directory / client, client)
        return MaskedMember(client, file, self.credentials.get(client), self.trust, clock=lambda: 1000.0)

    def partition(self, client: str) -> m.Partition:
        """The partition that the edge trains on."""
        return self.partitions.get(client, partition(self.clients.index(client)))

    def selected(self, number: int = 1, *, colluders: int = 0, **changes: Any) -> m.Selected:
        threshold = threshold_of(len(self.clients), colluders)
        masked = m.Masking(
            bits=changes.pop("bits", 64),
            threshold=changes.pop("threshold", threshold),
            least=changes.pop("least", threshold),
            colluders=colluders,
            members=tuple(m.Member(client=name, keys=self.keys[name]) for name in sorted(self.clients)),
        )
        usual: dict[str, Any] = {
            "run": RUN, "incarnation": 1, "seq": 0, "round": number, "task": "digits", "cohort": self.clients,
            "seconds_left": 60.0, "training": training_request(), "fold": fold_settings(), "encoding": "f32",
            "base": m.ModelReference(version=number - 1, digest="b" * 64), "inline_limit": 0, "masked": masked,
        }  # fmt: skip
        return m.Selected(**{**usual, **changes})

    def plan(self, selected: m.Selected, client: str | None = None) -> Plan:
        """The plan as ``client`` sees it; by default, one with the usual partition."""
        part = PARTITION if client is None else self.partition(client)
        return plan_of(selected, part, self.manifest.digest, self.manifest.values)

    def closing(self, selected: m.Selected, bodies: Mapping[str, str], **changes: Any) -> m.Closing:
        usual: dict[str, Any] = {
            "run": RUN, "incarnation": 1, "seq": 0, "round": selected.round, "plan": self.plan(selected).digest.hex(),
            "included": dict(bodies), "seconds_left": 60.0,
        }  # fmt: skip
        return m.Closing(**{**usual, **changes})

    def reveal(
        self,
        selected: m.Selected,
        holder: str,
        bodies: Mapping[str, str],
        signatures: Mapping[str, bytes],
        shares: Mapping[str, bytes],
        **changes: Any,
    ) -> m.Reveal:
        """``shares``: the sections of the clients in ``bodies``."""
        plan = self.plan(selected)
        index = plan.index(holder)
        packages = {
            client: text_of(SharesSection.of(plan, data).package(index)) for client, data in shares.items()
        }
        closing = self.closing(selected, bodies, **changes)
        return m.Reveal(
            **closing.model_dump(exclude={"kind", "v"}),
            signatures={client: text_of(data) for client, data in signatures.items()},
            packages=packages,
        )

    def answer(
        self, client: str, selected: m.Selected, asked: m.Closing | m.Reveal, body: str | None = None
    ) -> Answer:
        """What the edge answers, after a start of its program."""
        return self.answer_of(self.member(client), selected, asked, body, self.partition(client))

    def answer_of(
        self,
        member: MaskedMember,
        selected: m.Selected,
        asked: m.Closing | m.Reveal,
        body: str | None = None,
        part: m.Partition = PARTITION,
    ) -> Answer:
        effect = WorkOutAnswer(asked, selected, part, self.manifest.digest, self.manifest.values, body)
        return member.answer(effect, 0.0).answer

    def signatures(
        self, selected: m.Selected, bodies: Mapping[str, str], of: Collection[str] | None = None
    ) -> dict[str, bytes]:
        """What members sign; each starts anew."""
        found = {}
        for client in of or self.clients:
            answer = self.answer(client, selected, self.closing(selected, bodies))
            assert isinstance(answer, Signature), answer
            found[client] = answer.signature
        return found


def reason_of(answer: Answer) -> str:
    assert isinstance(answer, Refusal), answer
    return answer.reason


def shares_of(answer: Answer) -> Shares:
    assert isinstance(answer, Shares), answer
    return answer
