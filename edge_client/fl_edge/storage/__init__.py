"""What an edge keeps on its disk.

=====================  ==========================================================
``state_dir``          the directory, which one process locks
``update_store``       the finished update, until it is answered
``label_counts_file``  how many examples of each class the edges have
=====================  ==========================================================
"""
