"""``fl-aggregator doctor``: checks whether a broker can support a run, by trying all that a run needs.

``online``: the first connection, and whether a run is online. ``delivery``, ``packets``, ``queues``: what the
broker does with single messages, with large ones, and with many at once, on topics that no run uses
(``bench``). ``rights``: what the account may do on the topics of a run. ``findings``: the findings and the
verdict. ``examination``: all checks, in order. ``cli``: the command.
"""
