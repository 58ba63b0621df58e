"""Reads and controls a run over the broker, from any machine.

==============  ===================================================================
``cli``         ``status``, ``watch``, ``logs``, ``predict``;  ``control``: ``pause``, ``resume``, ``stop``, ``clear``
``remote_run``  connects, subscribes, receives
``observer``    keeps a run's birth and status
``follower``    makes snapshots from the messages that are retained for observers
``sighting``    a snapshot, and whether the aggregator is online
``status``      reads the run once;  ``watch``: follows it
``health``      ``status --check``;  ``logs``, ``predict``: a request and its answers
``command``     sends a command and waits for the answer;  ``stop``: and until the run has ended
``clear``       clears what is retained under a prefix
==============  ===================================================================
"""
