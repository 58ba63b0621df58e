"""Sends lines of the log of a process's edges to their readers: `log_readers` decides, this performs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fl_edge.runtime.edge import Edge
from fl_edge.runtime.log_readers import Answer, LogReaders, SealerFor
from fl_edge.runtime.recent_lines import recent_lines
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.base64url import decoded

if TYPE_CHECKING:
    from fl_shared.security.kit import Kit
    from fl_shared.security.sealing import Sealer


class RemoteLog:
    """The logs of ``edges``, as their readers get them."""

    def __init__(self, edges: Iterable[Edge], readers: LogReaders) -> None:
        self._edges = {edge.client: edge for edge in edges}
        self._readers = readers

    @property
    def due(self) -> float:
        """When `advance` has something to send; never (∞) without readers."""
        return self._readers.due

    def asked(self, request: m.LogRequest, now: float) -> None:
        """Answers a request for the log of one of the edges."""
        self._send(self._readers.asked(request, now))

    def advance(self, now: float) -> None:
        """Sends what there is to send, if that is `due`."""
        self._send(self._readers.advance(now))

    def _send(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            edge = self._edges[answer.message.client]
            if edge.connection is not None and edge.is_connected:
                topic = t.LogTopic(edge.client)
                edge.connection.send(topic, answer.message, retain=False, sealer=answer.sealer)


@contextmanager
def remote_log(edges: Sequence[Edge], kit: Kit | None, *, seals: bool, allowed: bool) -> Iterator[RemoteLog]:
    """Keeps what this program logs meanwhile, for readers. ``kit``: the edge's, null without one.

    ``seals``: whether the edges seal what they send. ``allowed``: whether their logs may be read.
    """
    sealer_for = None if kit is None or not seals else _sealer_for(kit)
    with recent_lines(edges) as lines:
        yield RemoteLog(edges, LogReaders(lines, allowed=allowed, sealer_for=sealer_for))


def _sealer_for(kit: Kit) -> SealerFor:
    from fl_shared.security.operator_seals import sealer_for_operator

    def sealer_for(request: m.LogRequest) -> Sealer | None:
        if request.public is None or request.voucher is None:
            return None
        return sealer_for_operator(kit, decoded(request.public), decoded(request.voucher), time.time())

    return sealer_for
