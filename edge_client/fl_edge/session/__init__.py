"""PURE: the state machine of one edge. It knows no broker, torch, clock, thread or randomness.

================  ===============================================================
``machine``       ``step(state, event) -> (state, effects)``;  ``transitions``: how they are built
``state``         the session and the phases of its registration;  ``work``: those of all else
``events``        what happens;  ``effects``: what is to be done
``registration``  registering for a run;  ``admission``: being a member of it
``refusal``       being refused;  ``declining``: not taking part;  ``own_state``: what is kept
``presence``      reacting to births and wills
``rounds``        being selected, fetching the base, training
``reporting``     sending an update until it is answered;  ``charging``: counting its cost first
``masking``       the plan of a masked round;  ``unmasking``: its sum;  ``evaluation``: of models
``policy``        the masked rounds that an edge requires;  ``survey``: the surveys;  ``privacy``: own noise
================  ===============================================================
"""
