"""Combines the aggregator and the edges in one program. Neither of the two packages imports this one."""
