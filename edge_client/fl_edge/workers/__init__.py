"""Processes that train, evaluate and predict on behalf of a fleet's edges.

===================  ============================================================
``pool``             gives jobs to workers;  ``slot``: the place of a worker in it
``deadlines``        watches how long jobs take
``failures``         what a job that failed is answered with
``limits``           how long a pool waits for its workers, and how much they keep
``process``          one worker process, seen from outside
``jobs``             what a worker is asked, and what it answers
``protocol``         the frames that carry jobs
``worker``           the program in the process;  ``torch_import``: before its work
``job_log``          a worker's log;  ``cached_model``: a model that a worker keeps
``training_result``  the memory that a training writes to;  ``masked_result``: masks it;  ``private_result``: adds noise
===================  ============================================================
"""
