"""Reads the log of one edge over the broker, as the operator: asks for it, and goes on asking while it follows."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from fl_aggregator.tools.remote.remote_run import RemoteRun
from fl_shared.cli.broker_access import BrokerAccess
from fl_shared.errors import CannotOpen, RunFailed
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.security.operator_seals import operator_key
from fl_shared.system.base64url import encoded
from fl_shared.system.text import duration_text

ASK_INTERVAL: Final = 2.0
"""Seconds until a request without an answer is repeated."""
RENEW_INTERVAL: Final = 10.0
"""Seconds until a request with an answer is repeated, so that the edge goes on."""
REQUEST_SECONDS: Final = 30
"""Seconds for which a request holds."""
SILENCE: Final = 25.0
"""Seconds without any message, after which the edge is taken to be gone."""
MORE_WAIT: Final = 2.0
"""Seconds to wait for further messages with recent lines; they may be lost."""
REFUSALS: Final[dict[m.LogRefusal, str]] = {
    "not-allowed": "its user does not allow that (--no-remote-log)",
    "needs-operator-kit": "it seals its messages, so it answers only the operator's kit of its federation (--kit)",
    "too-many-readers": "its program has too many readers already: try again in a minute",
}


class LogReader(RemoteRun):
    """Asks the edge ``client`` for lines of ``level`` and above, and ``recent`` lines of the past."""

    def __init__(self, reach: BrokerAccess, client: str, level: m.LogLevel, recent: int) -> None:
        self._presence_topic = t.build(reach.prefix, t.PresenceTopic(client))
        log_topic = t.build(reach.prefix, t.LogTopic(client))
        super().__init__(reach, [(log_topic, 0), (self._presence_topic, 0)])
        self.client = client
        self._left: m.ClientPresence | None = None
        """The newest presence of the edge, if it is offline."""
        self.answered = False
        """Whether the edge has answered yet."""
        self._request_topic = t.build(self.prefix, t.LogRequestTopic(client))
        kit = reach.kit
        if kit is not None:
            kit.check_voucher(datetime.now(UTC))
        public, voucher = (None, None) if kit is None else operator_key(kit)
        self._opener = None if kit is None else kit.opener()
        self._request = m.LogRequest(
            client=client,
            reader=secrets.token_hex(8),
            level=level,
            recent=recent,
            seconds=REQUEST_SECONDS,
            public=None if public is None else encoded(public),
            voucher=None if voucher is None else encoded(voucher),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ask(self._request.model_copy(update={"seconds": 0}))
        super().__exit__(kind, error, trace)

    def messages(self, until: float, wait: float) -> Iterator[m.LogLines]:
        """The edge's messages until ``until`` (monotonic seconds).

        Raises ``RunFailed`` if the edge refuses, is offline before it has answered, has not answered within ``wait``
        seconds, or answers no more.
        """
        heard_at, ask_at = time.monotonic(), 0.0
        while (now := time.monotonic()) < until:
            limit = SILENCE if self.answered else wait
            if now - heard_at >= limit:
                raise RunFailed(self._silence_text(limit))
            if not self.subscribed:
                ask_at = 0.0
            elif now >= ask_at:
                self._ask(self._request)
                ask_at = now + (RENEW_INTERVAL if self.answered else ASK_INTERVAL)
            received = self.receive(min(until - now, 0.5))
            if received is not None and received.topic == self._presence_topic:
                self._hear_presence(received)
                if self._left is not None and not self.answered:
                    raise RunFailed(f"edge {self.client} is offline{self._left_text()}")
                continue
            message = None if received is None else self._read_lines(received)
            if message is None:
                continue
            if message.refused is not None:
                raise RunFailed(f"edge {self.client} sends no lines: {REFUSALS[message.refused]}")
            if not self.answered:
                self.answered, ask_at = True, now + RENEW_INTERVAL
            heard_at = now
            yield message

    def _ask(self, request: m.LogRequest) -> None:
        self.publish(self._request_topic, codec.encode(request))

    def _hear_presence(self, received: mqtt.Received) -> None:
        try:
            presence = codec.decode(t.PresenceTopic(self.client), received.payload)
        except codec.DecodeError:  # also of a presence that was cleared
            return
        assert isinstance(presence, m.ClientPresence)
        self._left = presence if presence.state == "offline" else None

    def _left_text(self) -> str:
        """Why the edge has left, as far as it has said so."""
        reason = None if self._left is None else self._left.reason
        return ": it was lost, or has not said why it left" if reason is None else f": {reason}"

    def _silence_text(self, seconds: float) -> str:
        if self._left is not None:
            return f"edge {self.client} has gone offline{self._left_text()}"
        told = "has not answered" if not self.answered else "has stopped answering: nothing has arrived"
        return (
            f"edge {self.client} {told} within {duration_text(seconds)} {self.where}: is it online, and may this "
            f"account write to {self._request_topic}?"
        )

    def _read_lines(self, received: mqtt.Received) -> m.LogLines | None:
        """The message for this reader; null if it is not one, or if nobody can have made it but somebody else."""
        payload: bytes | memoryview = received.payload
        try:
            if codec.is_sealed(payload):
                if self._opener is None:
                    return None
                payload = self._opener.open(self.client, received.topic, payload).content
            message = codec.decode(t.LogTopic(self.client), payload)
        except (CannotOpen, codec.DecodeError):
            return None
        assert isinstance(message, m.LogLines)
        is_ours = (message.client, message.reader) == (self.client, self._request.reader)
        return message if is_ours and not received.retain else None


def read_log(
    access: BrokerAccess, client: str, level: m.LogLevel, recent: int, seconds: float | None, wait: float
) -> Iterator[m.LogLines]:
    """The recent lines of an edge, and then live ones for ``seconds`` (∞: until somebody ends it; null: none).

    ``wait``: seconds for the first answer. Raises ``UserError``, and ``RunFailed`` without an answer.
    """
    with LogReader(access, client, level, recent) as reader:
        if seconds is not None:
            yield from reader.messages(time.monotonic() + seconds, wait)
            return
        for message in reader.messages(time.monotonic() + wait + MORE_WAIT, wait):
            yield message
            if message.recent == 0:
                return


def text_lines(message: m.LogLines) -> Iterator[str]:
    """A message as lines for a person, with the local time."""
    for line in message.lines:
        at = datetime.fromisoformat(line.time).astimezone()
        level = "" if line.level in ("debug", "info") else f"{line.level}: "
        yield f"{at:%H:%M:%S} {level}{line.text}"
    if message.left_out:
        yield f"({message.left_out} lines left out: too many in a short time)"
    if message.withheld:
        yield f"({message.withheld} lines withheld: they may reveal something about the edge's data)"


def json_objects(message: m.LogLines) -> Iterator[dict[str, Any]]:
    """A message as objects for JSON: its lines, and how many are not among them."""
    yield from (line.model_dump(mode="json") for line in message.lines)
    counts = {name: getattr(message, name) for name in ("left_out", "withheld") if getattr(message, name)}
    if counts:
        yield counts
