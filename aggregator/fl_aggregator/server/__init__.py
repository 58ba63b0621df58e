"""Runs one federation: the loop that owns the state, and what performs its effects.

==============  =================================================================
``aggregator``  the loop: events in, ``round.machine.step``, effects out
``launch``      a new run, or a resumed one, ready to be run
``resume``      replays a journal: the state, and what is to be done again
``occupancy``   whether another aggregator is online under the prefix
``disk_pause``  the run stands still while the disk is full
==============  =================================================================
"""
