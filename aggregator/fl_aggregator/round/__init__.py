"""PURE: the state machine of a run. It knows no broker, clock, thread or randomness; events carry ``now``.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``selecting``     opens a round: the permutation;  ``ordering``: those of a region
``closing``       closes, commits or abandons a round; ends a run, and resumes it
``pace``          deadline and over-selection from what earlier rounds took
``registration``  clients and their partitions;  ``evaluation``: metrics of versions
``updates``       accepts or rejects an update;  ``personalization``: the edges' own models
``summary``       how a round ended;  ``effects``: what the machine asks for
``snapshot``      the state, and what a resume needs besides
``state``         of a run;  ``phases``, as types;  ``roster``: the clients;  ``events``
``awaited``       the edges that a round waits for;  ``persistent_map``
================  ===============================================================
"""
