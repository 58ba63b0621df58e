"""PURE: the state machine of a run. It knows no broker, clock, thread or randomness; events carry ``now``.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``selecting``     opens a round: the permutation;  ``ordering``: those of a region
``drawing``       opens one whose cohort is secret;  ``secrecy``: what is shown of it
``closing``       closes, commits or abandons a round;  ``pace``: its deadline
``agreeing``      on what a masked round sums;  ``unmasking``: its sum
``pausing``       the operator's commands;  ``command_events``;  ``revoking``: of kits
``registration``  clients, their partitions;  ``two_machines``;  ``evaluation``;  ``looking``
``updates``       accepts or rejects an update;  ``personalization``: the edges' own models
``state``         of a run;  ``snapshot``: for a resume;  ``phases``;  ``roster``;  ``events``;  ``effects``
``summary``       how a round ended;  ``awaited``: its edges;  ``privacy``: of releases;  ``persistent_map``
================  ===============================================================
"""
