"""Regional aggregators: an edge of the run above, whose training is a round of its own edges below.

===========  =================================================================
``cli``      ``fl-aggregator relay``
``program``  connects both sides, and runs until it is stopped
``region``   the jobs of the edge above, done by the aggregator below
``below``    the aggregator of the region, on a thread of its own
``versions`` what each version of the run above means to the region
``update``   the update that a region sends
``models``   passes announced versions on to the region
===========  =================================================================
"""
