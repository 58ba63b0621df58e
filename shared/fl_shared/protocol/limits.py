"""Sizes and times that both sides keep to."""

from typing import Final

MAX_JSON: Final = 64 * 2**10
"""Bytes of the largest JSON message."""
MAX_NAMES: Final = 2 * 2**20
"""Bytes of the largest JSON message that may name every edge of a large round, or has the curves of all rounds."""
MAX_REQUEST: Final = 16 * 2**20
"""Bytes of the largest prediction request."""
INLINE_LIMIT: Final = 4 * 2**20
"""Bytes of the largest update that is sent whole: larger packets are slow, and cost the broker a copy."""
INLINE_COHORT: Final = 50
"""Edges of the largest cohort that sends updates whole; all of them must fit into a broker's queue.

In a larger cohort, every update is offered first.
"""
INLINE_OVERHEAD: Final = 64 * 2**10
"""Bytes that are reserved for an update's fields besides its data."""
ANSWER_WAIT: Final = 5.0
"""Seconds to wait for a broker's answer to SUBSCRIBE."""
BIRTH_WAIT: Final = 0.3
"""Seconds to wait for a retained birth, which the broker sends right after its answer to SUBSCRIBE."""
MAX_STATUS_AGE: Final = 15.0
"""Seconds after which a status is too old: three of them are overdue then (protocol, 8.4)."""
STATUS_WAIT: Final = 6.0
"""Seconds to wait for a newer status than a retained one that looks old: one is published every 5 s."""
