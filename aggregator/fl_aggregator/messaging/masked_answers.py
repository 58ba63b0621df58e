"""Checks what members of a masked round say before it is an event: their keys, signatures and opened shares."""

from __future__ import annotations

import hashlib
import time

from fl_aggregator.messaging.revoked_kits import RevokedKits
from fl_aggregator.messaging.translate import MessageRejected
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Agreeing, agreeing_of
from fl_aggregator.round.state import Run
from fl_shared.masking.answers import signers
from fl_shared.masking.plan import Plan
from fl_shared.masking.run_keys import BadRunKeys, check_keys, parse_keys
from fl_shared.masking.unmasking import opened_size
from fl_shared.protocol import messages as m
from fl_shared.system import base64url


class MaskedAnswers:
    """Reads the answers of members, on the loop's thread. ``enrolment``: the key that certifies theirs, null in a lab.

    ``revoked``: members with one of these are refused. ``plan``: of the masked round that is open or being unmasked.
    """

    def __init__(self, enrolment: bytes | None = None, revoked: RevokedKits | None = None) -> None:
        self.plan: Plan | None = None
        self._enrolment = enrolment
        self._revoked = RevokedKits() if revoked is None else revoked

    def refusal(self, message: m.Registration, run: str) -> do.SendReply | None:
        """Refuses an edge whose keys for the run cannot be used, or are not certified; null if they are right."""
        if message.keys is None:
            return None
        try:
            keys = parse_keys(message.keys)
            check_keys(keys, run, message.client, self._enrolment, time.time())
            if keys.certificate is not None and self._revoked.is_revoked(keys.certificate.member):
                raise BadRunKeys(f"keys: the member key is in a revoked kit of {message.client!r}")
        except (ValueError, BadRunKeys) as error:
            refusal = do.Refuse("bad-run-keys", str(error))
            return do.SendReply(message.client, message.session, refusal)
        return None

    def event(
        self, message: m.Agreed | m.Opened | m.Declined, state: Run, now: float
    ) -> on.Agreed | on.SharesArrived | on.Declined | None:
        """Returns what a member's answer means; null if no such answer is awaited. Raises ``MessageRejected``."""
        agreeing = agreeing_of(state.phase)
        plan = self.plan
        if agreeing is None or plan is None or (agreeing.round, plan.round) != (message.round, message.round):
            return None  # of a round that has ended: the edge will hear of it
        if message.client not in plan.clients:
            raise _rejected(message, "not-selected", f"client: is no member of round {message.round}")
        if isinstance(message, m.Declined):
            return on.Declined(
                now=now,
                client=message.client,
                round=message.round,
                reason=message.reason,
                detail=message.detail,
            )
        included = agreeing.collected.included
        closing = plan.closing(included)
        if message.closing != closing.hex():
            detail = f"closing: {message.closing[:12]}, expected {closing.hex()[:12]}"
            raise _rejected(message, "wrong-closing", detail)
        if isinstance(message, m.Agreed):
            if not isinstance(state.phase, Agreeing):
                return None  # there are enough signatures
            if not signers(plan, closing, {message.client: message.signature}):
                raise _rejected(message, "wrong-signature", "signature: not that of the member's key")
            return on.Agreed(
                now=now,
                client=message.client,
                round=message.round,
                closing=message.closing,
                signature=base64url.encoded(message.signature),
            )
        self._check_shares(message, plan, included)
        return on.SharesArrived(
            now=now,
            client=message.client,
            session=message.session,
            round=message.round,
            digest=message.digest,
            payload=message,
        )

    @staticmethod
    def _check_shares(message: m.Opened, plan: Plan, included: dict[str, str]) -> None:
        if len(message.shares) != (size := opened_size(plan, included)):
            raise _rejected(
                message, "wrong-size", f"shares: {len(message.shares)} bytes, expected {size} for this set"
            )
        if hashlib.sha256(message.shares).hexdigest() != message.digest:
            raise _rejected(message, "wrong-digest", f"digest: {message.digest[:12]}, not that of the shares")
        if strangers := sorted(set(message.unopened) - included.keys()):
            raise _rejected(message, "malformed", f"unopened: {strangers[0]!r} is not in the set")


def _rejected(message: m.Agreed | m.Opened | m.Declined, reason: str, detail: str) -> MessageRejected:
    return MessageRejected(reason, f"{message.kind}: {detail}", message.client)
