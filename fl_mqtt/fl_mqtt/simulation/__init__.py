"""Runs a whole federation on one machine.

================  ===============================================================
``local``         a broker, a fleet of edges and the aggregator, as processes
``edges_online``  waits for the edges of a run that is resumed
``attacks``       what attackers send, as a test
``attacking``     the fleet with attackers, and its workers
``cli``           ``fl-aggregator simulate``
``sweep``         several runs, one or a few at a time (``sweep_cli``: as a command)
``sweep_plan``    which runs a sweep has
================  ===============================================================
"""
