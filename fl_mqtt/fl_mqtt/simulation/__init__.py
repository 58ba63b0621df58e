"""Runs a whole federation on one machine.

=========  ======================================================================
``local``  a broker, a fleet of edges and the aggregator, as processes
``cli``    ``fl-aggregator simulate``
=========  ======================================================================
"""
