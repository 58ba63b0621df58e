"""Reads and asks a run over the broker, from any machine.

==============  ===================================================================
``cli``         the commands ``status``, ``watch``, ``predict`` and ``stop``
``remote_run``  connects, subscribes, receives
``observer``    keeps a run's birth and status
``follower``    makes snapshots of what is retained at the broker for observers
``sighting``    a snapshot, and whether the aggregator is online
``status``      one look;  ``watch``: follows the run
``health``      ``status --check``;  ``predict``, ``stop``: one request, one answer
==============  ===================================================================
"""
