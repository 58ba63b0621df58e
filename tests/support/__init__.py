"""Helpers of the tests: programs, brokers, MQTT clients, simulated peers, builders and invariants.

All helpers are here, and no module imports from a ``test_*.py`` (``tests/project/test_layout.py``).
"""
