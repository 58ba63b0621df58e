"""The edge: ``fl-edge``. A subpackage imports only those below it.

==============  =================================================================
``cli``         the command;  ``tools``: programs for authors of tasks
``runtime``     runs the edges of one process: performs the machine's effects
``workers``     processes that train, evaluate and predict
``prediction``  answers prediction requests over the broker
``training``    executes tasks on vectors
``messaging``   the connection of an edge to the broker
``storage``     what an edge keeps on its disk
``tasks``       what is trained;  ``data``: data sets and how they are divided
``session``     PURE: the state machine of one edge
``errors``      exceptions about tasks, data and models
==============  =================================================================
"""
