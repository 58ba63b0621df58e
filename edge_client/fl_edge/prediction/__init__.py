"""Answers prediction requests over the broker.

================  =================================================================
``predictor``     takes requests, and answers them with the newest model
``newest_model``  fetches that model when a request needs it
``rate_limit``    limits the requests of a process and of each asker
================  =================================================================
"""
