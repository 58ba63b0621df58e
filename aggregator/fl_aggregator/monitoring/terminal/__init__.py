"""A run on a terminal.

============  ===================================================================
``snapshot``  the data to show: from the aggregator's state, or from messages
``render``    a snapshot for a live terminal;  ``text``: a snapshot as lines
``display``   shows the run that this process runs
============  ===================================================================
"""
