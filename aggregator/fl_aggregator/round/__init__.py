"""PURE: the state machine of a run. It knows no broker, clock, thread or randomness; events carry ``now``.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``selecting``     opens a round: the permutation;  ``ordering``: those of a region
``drawing``       opens one whose cohort is secret;  ``secrecy``: what is shown of it
``closing``       closes, commits or abandons a round;  ``pace``: its deadline
``agreeing``      on what a masked round sums;  ``unmasking``: its sum
``registration``  clients and their partitions;  ``revoking`` of kits;  ``evaluation``: metrics of versions
``updates``       accepts or rejects an update;  ``personalization``: the edges' own models
``summary``       how a round ended;  ``effects``: what the machine asks for
``state``         of a run;  ``snapshot``: for a resume;  ``phases``;  ``roster``;  ``events``
``awaited``       the edges that a round waits for;  ``privacy``: those of releases;  ``persistent_map``
================  ===============================================================
"""
