"""PURE: the state machine of a run. It knows no broker, clock, thread or chance; every event carries ``now``.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``selecting``     opening a round: the seeded permutation, cohort, substitutes
``closing``       closing, committing, abandoning; the end of a run, and resuming it
``registration``  clients and their partitions;  ``evaluation``: scores of models
``updates``       accepting or rejecting an update
``summary``       what a round that ended says;  ``effects``: what the machine asks for
``state``         the phases, as types;  ``roster``: the clients;  ``events``
================  ===============================================================
"""
