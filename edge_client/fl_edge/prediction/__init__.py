"""Answers predictions over the broker.

==============  =================================================================
``predictor``   takes requests, and answers with the newest model
``rate_limit``  how many requests one client may have answered
==============  =================================================================
"""
