"""The command line of the aggregator.

===========  ====================================================================
``main``     all commands
``start``    ``fl-aggregator start``;  ``survey``;  ``serve``
``options``  the options of a run;  ``completion``: what shells complete for them
``run``      runs an aggregator as a program: display, trackers, signals
``summary``  the text that is printed at the end
===========  ====================================================================
"""
