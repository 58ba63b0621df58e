"""Programs for authors of tasks.

=================  ==================================================
``task_commands``  the commands ``new-task`` and ``check-task``
``task_check``     tries all that a task must keep
``trial``          makes and trains its model:  ``torch_trial``, ``light_trial``
``template``       the files of a new task
=================  ==================================================
"""
