"""Runs one federation: the loop that owns the state, and the interpreter of its effects.

=====================  ============================================================
``aggregator``         the loop: events in, ``round.machine.step``, effects out
``runner``             gives the machine its events; ``interpreter`` performs the effects
``masked_rounds``      those of masked rounds;  ``secret_cohorts``;  ``model_publication``: of new versions
``connection_events``  subscribes and publishes again after a reconnect
``launch``             prepares a new run, or one that is resumed
``run_files``          writes what a run leaves;  ``compaction``: of the journal;  ``outcome``
``resume``             replays a journal: the state, and the effects to repeat
``above``              what a region tells the run above;  ``operation``: looks at a served model
``fencing``            lets only one aggregator run under a prefix;  ``revocation_file``: of kits
``pauses``             why the run is paused, and its time;  ``disk_pause``: while the disk is full
=====================  ============================================================
"""
