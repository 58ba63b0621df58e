"""Executes tasks on vectors: training, evaluation, prediction.

======================  =========================================================
``executor``            the interface of executors
``factory``             chooses the executor of a task
``torch_executor``      executes tasks in torch
``local_training``      one call of training, evaluation or prediction in torch
``generator``             torch's global generator, for one thread at a time
``model_check``         examines a task's model when the task is loaded
``task_results``        checks what a task's own code returns
``synthetic_executor``  executes ``synthetic-N``, without torch
======================  =========================================================
"""
