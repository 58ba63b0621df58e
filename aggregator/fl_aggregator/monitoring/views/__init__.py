"""Computed from the run's state alone; no broker, clock or thread.

===============  ================================================================
``status``       the run at this moment
``edge_states``  what each edge is doing
``history``      the rounds so far, thinned to a bounded number
``notices``      log lines: what the run waits for, who came and who went
===============  ================================================================
"""
