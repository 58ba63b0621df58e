"""One edge as a member of masked rounds: it has keys, signs the set of updates that is summed, and opens it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping

from fl_edge.session import effects, events
from fl_edge.session.masking import MaskedRun, Trust, UnacceptablePlan, checked_plan
from fl_edge.session.work import Answer, Refusal, Shares, Signature
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.workers.jobs import Masking
from fl_shared.masking.answers import Declined, open_shares, sign_closing
from fl_shared.masking.plan import Plan, closing_digest
from fl_shared.masking.run_keys import MemberCredential, RunKeys
from fl_shared.protocol import messages as m
from fl_shared.system import base64url
from fl_shared.tensors.manifest import Manifest

MAX_DETAIL = 1000
"""The longest text that says why the edge does not sign or open, in characters."""


class MaskedMember:
    """Performs what the session of ``client`` asks for in masked rounds, in the thread that calls it.

    ``credential`` certifies its keys, and ``trust`` says whose it takes for those of a member; null without a kit.
    ``clock``: seconds since 1970.
    """

    def __init__(
        self,
        client: str,
        file: RunKeysFile,
        credential: MemberCredential | None = None,
        trust: Trust = Trust(),  # noqa: B008  immutable
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._file = file
        self._credential = credential
        self._trust = trust
        self._clock = clock

    def restored(self) -> MaskedRun | None:
        """What an earlier process of the edge has left of a masked run; null if nothing."""
        run = self._file.run
        return None if run is None else MaskedRun(run, self._announced(run))

    def make_keys(self, run: str, now: float) -> events.RunKeysMade:
        """See `effects.MakeRunKeys`."""
        return events.RunKeysMade(now, run, self._announced(run))

    def _announced(self, run: str) -> str:
        return self._file.make(run).announce(run, self._client, self._credential)

    def drop_keys(self) -> None:
        """See `effects.DropRunKeys`."""
        self._file.drop()

    def masking(
        self, selected: m.Selected, partition: m.Partition, manifest: Manifest | None
    ) -> Masking | None:
        """What a worker needs in order to mask an update of this round; null if the round is not masked.

        ``partition``: the one that it trains on. ``manifest``: the base's; null without one. On return the plan is on
        the disk. Raises `UnacceptablePlan`.
        """
        if selected.masked is None:
            return None
        if manifest is None:
            raise UnacceptablePlan(
                "wrong-plan", f"round {selected.round} makes first weights, which are not masked"
            )
        keys = self._keys(selected.run)
        plan = self._plan(selected, partition, manifest.digest, manifest.values, keys)
        self._commit(plan)
        mask, agree = keys.private_bytes()
        return Masking(selected, mask, agree, self._trust.enrolment)

    def _keys(self, run: str) -> RunKeys:
        keys = self._file.keys(run)
        if keys is None:
            raise UnacceptablePlan("no-keys", f"edge {self._client} has no keys of run {run} any more")
        return keys

    def _plan(
        self, selected: m.Selected, partition: m.Partition, manifest: str, values: int, keys: RunKeys
    ) -> Plan:
        now = self._clock()
        return checked_plan(selected, partition, manifest, values, self._client, keys, self._trust, now)

    def answer(self, effect: effects.WorkOutAnswer, now: float) -> events.Answered:
        """See `effects.WorkOutAnswer`."""
        asked = effect.asked
        closing = closing_of(asked)
        found: Answer
        try:
            found = self._answer(effect, closing)
        except (UnacceptablePlan, Declined) as error:
            found = Refusal(closing, error.reason, str(error)[:MAX_DETAIL])
        return events.Answered(now, asked, found)

    def _answer(self, effect: effects.WorkOutAnswer, closing: str) -> Answer:
        asked, selected, client = effect.asked, effect.selected, self._client
        keys = self._keys(asked.run)
        plan = self._plan(selected, effect.partition, effect.manifest, effect.values, keys)
        body = asked.included.get(client)
        if None not in (body, effect.body) and body != effect.body:
            raise UnacceptablePlan(
                "another-set", f"the set has another update of edge {client} than it has sent"
            )
        found: Answer
        if isinstance(asked, m.Closing):
            found = Signature(closing, sign_closing(plan, client, keys, asked))
        else:
            opened = open_shares(
                plan, client, keys, asked, _decoded(asked.signatures), _decoded(asked.packages)
            )
            digest = hashlib.sha256(opened.shares).hexdigest()
            found = Shares(closing, digest, opened.shares, opened.unopened)
        self._commit(plan, closing)
        return found

    def _commit(self, plan: Plan, closing: str | None = None) -> None:
        """Writes down the plan, and which set is signed, before anything that depends on it leaves."""
        try:
            if self._file.commit(plan.round, plan.digest.hex(), closing):
                return
        except OSError as error:
            text = f"edge {self._client} cannot write down what it masks and signs: {error.strerror}"
            raise UnacceptablePlan("no-keys", text) from None
        raise UnacceptablePlan(
            "another-set",
            f"edge {self._client} has masked or signed something else in round {plan.round}, or in a later one",
        )


def closing_of(asked: m.Closing | m.Reveal) -> str:
    """The digest (hex) of the set of updates that is asked for, of whatever plan it is (protocol, 10.8)."""
    return closing_digest(bytes.fromhex(asked.plan), asked.included).hex()


def _decoded(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Bytes from base64url without padding. What has a length that no bytes have is left out."""
    return {name: base64url.decoded(text) for name, text in texts.items() if len(text) % 4 != 1}
