"""Executes tasks on vectors: training, evaluation, prediction.

======================  =========================================================
``executor``            the interface of executors;  ``factory`` chooses one for a task
``task_executor``       what the two following executors have in common
``torch_executor``      executes tasks in torch;  ``light_executor``: dense models in NumPy
``corrections``         what strategies add to the gradients of any task
``update``              trains and makes the update, for both;  ``tallies``: of masked ones
``local_training``      one call in torch;  ``local_part``: what of a model stays on the edge
``generator``           torch's global generator, for one thread at a time
``model_check``         examines a task's model when the task is loaded
``task_results``        checks what a task's own code returns
``synthetic_executor``  executes ``synthetic-N``, without torch
======================  =========================================================
"""
