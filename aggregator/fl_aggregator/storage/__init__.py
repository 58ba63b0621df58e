"""What a run keeps on disk.

==================  =================================================================
``run_directory``   a run's directory, its settings and its lock;  ``sweep_record``
``journal``         every event of the round machine;  ``replay``: the states that follow
``append_log``      a file of complete lines;  ``served_history``: of served versions
``checkpoint``      the last versions of the model, the newest and the best
``initial_weights`` what ``--init`` names
``noise_keys``      the keys of a private run's noise;  ``privacy_ledger``: its budget over runs
``spool``           accepted updates until they are averaged;  ``opened_shares``: of their masks
``partial_update``  an update that arrives in chunks;  ``spool_format``: how it lies in a file
``update_content``  the sections of one update
``disk_space``      reserves disk space, and reports a full disk
==================  =================================================================
"""
