"""An edge: trains on its own data when it is selected, reports, evaluates, and answers predictions.

======================  ==============================================================================
``cli``                 the command ``fl-edge``; imports nothing heavy until it begins to work
``fleet``               many edges in one process: directories, connections, workers, and their end
``state_dir``           what an edge keeps on disk: its device token, and a lock
``kept``                its finished update on disk, until that is answered
``session``             PURE: the machine of one edge, ``step(state, event) -> (state, effects)``
``runtime``             the only loop: takes events from one inbox, performs effects in order
``inbox``               what waits for it, bounded in bytes
``edge``                one edge's state and what belongs to it
``wire``                an edge's connection: will, session names, what it listens to
``reception``           what the broker tells: decoded, counted if useless, passed on
``translate``           wire message → event
``trust``               what an edge with a kit believes: what is signed, and is not old
``models``              the models that the edges of a process need, fetched once for all
``labour``              the jobs of sessions and predictors, and what their results mean
``parts_file``          how each edge's data are spread over the classes, for reports on simulations
``predictor``           prediction requests and their answers
``quota``               how many of them, in all and of each asker
``vigil``               what people should hear while there is no broker, or no aggregator
``heartbeat``           a file whose age tells whether the edges are at work
``pool``                worker processes and the jobs among them; imports no torch
``jobs``                what a worker is asked and answers, and how that travels
``memory``              memory that processes share, so that large vectors are not copied
``worker``              the process that trains, evaluates and predicts
``worker_process``      one worker as its parent sees it
``craft``               how the work of a task is done, vectors in and vectors out
``torch_craft``         that of a task with a model of torch (``training``: between flat vectors and torch)
``tasks``               a task = model, data, how to train, evaluate and predict; ``synthetic-N`` for measuring
``partition``           whose part of a data set is whose
``datasets``            data sets: found, read, or downloaded (``formats``, ``downloads``)
``errors``              what can go wrong in learning, as types
======================  ==============================================================================

Threads: the network's and the pool's only enqueue; one owns all sessions. Learning happens in other processes.
"""
