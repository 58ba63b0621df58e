"""Sizes that both sides keep to."""

from typing import Final

MAX_JSON: Final = 64 * 2**10
"""Bytes of a JSON message."""
MAX_NAMES: Final = 2 * 2**20
"""Bytes of a JSON message that may name every edge of a large round."""
MAX_REQUEST: Final = 16 * 2**20
"""Bytes of a prediction request."""
INLINE_LIMIT: Final = 4 * 2**20
"""Bytes. Larger packets are slow, and cost the broker a copy."""
INLINE_COHORT: Final = 50
"""Edges. In larger cohorts every update is offered first: all at once must fit into a broker's queue."""
INLINE_OVERHEAD: Final = 64 * 2**10
"""Room for all of an update but its data."""
ANSWER_WAIT: Final = 5.0
"""Seconds in which a broker answers SUBSCRIBE."""
BIRTH_WAIT: Final = 0.3
"""Seconds; a retained birth follows the answer to SUBSCRIBE at once."""
MAX_STATUS_AGE: Final = 15.0
"""Seconds since a status was written: three of them are late then (protocol, 8.4)."""
STATUS_WAIT: Final = 6.0
"""Seconds; a status is written every 5 s; so long a retained one that looks old may be proved wrong by the next one."""
