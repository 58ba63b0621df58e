"""The command line of the aggregator.

===========  ====================================================================
``main``     all commands
``start``    ``fl-aggregator start``
``options``  the options of a run
``run``      runs an aggregator as a program
``summary``  what is printed at the end
===========  ====================================================================
"""
