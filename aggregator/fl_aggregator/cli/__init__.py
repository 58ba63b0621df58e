"""The command line of the aggregator.

===========  ====================================================================
``main``     all commands
``start``    ``fl-aggregator start``
``survey``   ``fl-aggregator survey``
``options``  the options of a run
``run``      runs an aggregator as a program: display, trackers, signals
``summary``  the text that is printed at the end
===========  ====================================================================
"""
