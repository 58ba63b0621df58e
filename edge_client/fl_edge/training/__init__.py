"""Executes tasks on vectors: training, evaluation, prediction.

======================  =========================================================
``executor``            the interface of executors;  ``factory`` chooses one for a task
``task_executor``       what the two following executors have in common
``torch_executor``      executes tasks in torch;  ``light_executor``: dense models in NumPy
``corrections``         what strategies add to the gradients of any task
``example_level``       hides single examples in training;  ``local_noise``: whole updates
``update``              trains and makes the update, for both;  ``tallies``: of masked ones
``local_training``      one call in torch;  ``local_part``: what of a model stays on the edge
``generator``           torch's global generator;  ``model_check``: examines a model when its task is loaded
``task_results``        checks what a task's own code returns
``synthetic_executor``  executes ``synthetic-N``;  ``survey_executor``: surveys a task's data
======================  =========================================================
"""
