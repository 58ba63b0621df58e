"""PURE: the state machine of one edge. It knows no broker, torch, clock, thread or randomness.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``state``         the phases, as types;  ``events``, ``effects``
``registration``  becoming a member of a run
``rounds``        being selected, fetching the base, training
``reporting``     sending an update until it is answered
``evaluation``    evaluating models that were announced
``transitions``   builds transitions
================  ===============================================================
"""
