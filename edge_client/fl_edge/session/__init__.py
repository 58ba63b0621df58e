"""PURE: the state machine of one edge. It knows no broker, torch, clock, thread or chance.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``state``         the phases, as types;  ``events``, ``effects``
``registration``  becoming one of the run's clients
``rounds``        being selected, training, sending the update
``reporting``     what is repeated until it is answered
``evaluation``    evaluating models that were announced
``transitions``   builds transitions
================  ===============================================================
"""
