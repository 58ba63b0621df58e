"""Runs the edges of one process: performs the effects of their session machines.

==============  =================================================================
``fleet``       edges with one network, one pool of workers (``worker_setup``), one loop
``loop``        the thread that owns all state: takes events, performs effects
``edge``        one edge: its session, its connection;  ``masked_member``: in masked rounds;  ``edge_options``
``inbox``       what other threads hand to the loop, its ``items``
``router``      which message is for which edge
``dispatcher``  jobs for the pool, and their results;  ``schedule``: what is due when;  ``registration_window``
``remote_log``  the log for remote readers: its ``recent_lines``, its ``log_readers``
``predictors``  where predictions are made, and when they are due
``device``      the device to train on;  ``environment``: software and machine;  ``privacy_options``, ``survey_options``
``heartbeat``   shows that the process works;  ``notices``: what it waits for;  ``thread_failures``, ``open_files``
==============  =================================================================
"""
