"""Runs federations on behalf of a Python program: no signal handlers, no output, no state but that of its objects.

=============  ==================================================================================
``run``        `simulate` and `Aggregator`, which run the aggregator in this process
``edge``       `Edge`, which runs edges in a process of their own
``result``     what a run gives back: history, model, metrics, results by edge
``arguments``  keyword arguments as the options of the programs
``task``       a class as a task's name, and as a file from which other processes load the class
=============  ==================================================================================
"""
