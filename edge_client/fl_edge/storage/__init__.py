"""What an edge keeps on its disk.

=====================  ==========================================================
``state_dir``          the directory, which one process locks
``update_store``       the finished update, until it is answered
``own_state_files``    what is kept of a run besides an update
``run_keys_file``      the keys in a masked run, and which set of updates is signed
``privacy_ledger``     what updates have cost of the edge's privacy, over all runs
``saved_file``         what both have in common
``label_counts_file``  how many examples of each class the edges have
=====================  ==========================================================
"""
