"""The program ``fl-mqtt``: all programs in one.

========  =====================================================================
``main``  the group of commands
``demo``  ``fl-mqtt demo``: a simulation of digits, and a prediction
========  =====================================================================
"""
