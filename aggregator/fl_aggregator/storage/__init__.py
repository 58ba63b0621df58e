"""What a run keeps on disk.

==================  =============================================================
``run_directory``   the directory of a run, its settings and its lock
``journal``         every event of the round machine, before its effects
``append_log``      a file of lines, whole or cut back
``checkpoint``      models, and what stands beside them
``spool``           accepted updates until they are averaged
``spool_format``    the layout of a spooled update
``update_content``  what an update brings
``disk_space``      room that is made sure of before anything is written
==================  =============================================================
"""
