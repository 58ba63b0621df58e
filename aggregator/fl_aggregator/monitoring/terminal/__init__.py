"""A run on a terminal.

============  ===================================================================
``snapshot``  what is shown: from the aggregator's own state, or from messages
``render``    a snapshot for a live terminal;  ``text``: the same as lines
``display``   shows the run that this process runs
============  ===================================================================
"""
