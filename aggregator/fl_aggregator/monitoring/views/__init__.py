"""Views that are computed from the run's state alone; no broker, clock or thread.

================  ===============================================================
``status``        the run at this moment
``edge_states``   what each edge is doing
``round_record``  the record of one round;  ``history_row``: the part of it that watchers get
``history``       the rounds so far, thinned to a bounded number
``visibility``    what the aggregator can see of updates;  ``privacy``: what a private run promises
``beginning``     log lines of how a run begins
``notices``       log lines: which edges the run waits for, which came and left, whose updates never count;
                  ``two_machines``: with one id;  ``unsteadiness``: versions that differ widely
================  ===============================================================
"""
