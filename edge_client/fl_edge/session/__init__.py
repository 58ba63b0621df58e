"""PURE: the state machine of one edge. It knows no broker, torch, clock, thread or randomness.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``
``state``         the session and the phases of its registration, as types
``work``          the phases of a round's work and of an evaluation
``events``        what happens;  ``effects``: what is to be done
``registration``  registering for a run;  ``admission``: being a member of it
``refusal``       being refused;  ``declining``: not taking part
``presence``      reacting to births and wills;  ``own_state``: what is kept
``rounds``        being selected, fetching the base, training
``reporting``     sending an update until it is answered
``evaluation``    evaluating models;  ``transitions``: how they are built
================  ===============================================================
"""
