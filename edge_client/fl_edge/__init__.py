"""The edge: ``fl-edge``. A room imports only rooms below it.

==============  =================================================================
``cli``         the command
``runtime``     runs the edges of one process: performs the machine's effects
``workers``     processes that train, evaluate and predict
``prediction``  answers predictions over the broker
``training``    executes tasks on vectors
``messaging``   an edge and the broker
``storage``     what an edge keeps on its disk
``tasks``       what is learned;  ``data``: data sets and how they are divided
``session``     PURE: the state machine of one edge
``errors``      what can go wrong with a task, its data or a device
==============  =================================================================
"""
