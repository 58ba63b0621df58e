"""Converts the model of a run into files that other programs read, with the task of an edge.

===========  ====================================================================
``formats``  the formats, with torch
``cli``      ``fl-aggregator export``
===========  ====================================================================
"""
