"""``fl-aggregator doctor``: is this broker good enough for a run? Each thing that a run needs is tried on it.

``online``: the first connection, and whether a run is online. ``delivery``, ``packets``, ``queues``: what the broker
does with messages, one by one, large ones, and many at once, on topics of our own (``bench``). ``rights``: what the
account may do on the topics of a run. ``findings``: what was found out, and the verdict. ``examination``: all trials,
in their order. ``cli``: the command.
"""
