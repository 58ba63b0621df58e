"""Executes tasks on vectors: training, evaluation, prediction.

======================  =========================================================
``executor``            what an executor does, vectors in and vectors out
``factory``             the executor that a task calls for
``torch_executor``      executes tasks in torch
``local_training``      one call of training, evaluation or prediction in torch
``synthetic_executor``  executes ``synthetic-N``, without torch
======================  =========================================================
"""
