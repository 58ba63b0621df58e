"""An edge and the broker.

================  ===============================================================
``connection``    one edge's connection
``translate``     messages into the machine's events
``authenticity``  signatures, and messages that are old
``model_store``   fetches models, once for all edges of the process
================  ===============================================================
"""
