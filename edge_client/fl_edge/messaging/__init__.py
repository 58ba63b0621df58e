"""Connects an edge to the broker.

================  ===============================================================
``connection``    one edge's connection
``translate``     turns messages into the machine's events
``authenticity``  checks signatures, and finds messages that are old
``model_store``   fetches models, once for all edges of the process
================  ===============================================================
"""
