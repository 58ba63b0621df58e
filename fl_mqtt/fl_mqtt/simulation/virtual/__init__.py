"""A whole run in virtual time: both machines, driven by a queue of events instead of clocks and a broker.

=================  =======================================================================
``world``          the queue, and the time of its next event
``network``        carries messages over the links of edges;  ``models``: what is published
``devices``        how fast each edge is, on which link, and when it is there
``specification``  reads that from a file (``presets``, or a user's own)
``edge``           one edge: its session, and what performs its effects
``jobs``           trains and evaluates when the result is looked at, or a worker is idle
``aggregator``     the aggregator without connections
``fleet``          all edges, as their devices come and go
``run``            a whole run;  ``cli``: ``simulate --virtual``
=================  =======================================================================
"""
