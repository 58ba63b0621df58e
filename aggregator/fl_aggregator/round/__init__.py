"""PURE: the state machine of a run. It knows no broker, clock, thread or randomness; events carry ``now``.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``selecting``     opens a round: the permutation;  ``ordering``: those of a region
``closing``       closes, commits or abandons a round;  ``pace``: its deadline
``agreeing``      on what a masked round sums;  ``unmasking``: its sum
``registration``  clients and their partitions;  ``evaluation``: metrics of versions
``updates``       accepts or rejects an update;  ``personalization``: the edges' own models
``summary``       how a round ended;  ``effects``: what the machine asks for
``snapshot``      the state, and what a resume needs besides
``state``         of a run;  ``phases``, as types;  ``roster``;  ``events``, ``masked_events``
``awaited``       the edges that a round waits for;  ``persistent_map``
================  ===============================================================
"""
