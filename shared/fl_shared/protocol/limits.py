"""Sizes that both sides keep to."""

from typing import Final

INLINE_LIMIT: Final = 4 * 2**20
"""Bytes. Larger packets are slow, and cost the broker a copy."""
INLINE_COHORT: Final = 50
"""Edges. In larger cohorts every update is offered first: all at once must fit into a broker's queue."""
INLINE_HEAD: Final = 64 * 2**10
"""Room for all of an update but its data."""
