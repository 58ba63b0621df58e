"""Corrections: what the strategy of a run adds to the gradients of its edges, whatever their task.

===============  ====================================================
``correction``   what a correction must provide
``registry``     finds corrections by name
``prox``         FedProx;  ``scaffold``: SCAFFOLD
``observation``  sees each step of a training, and applies all that
===============  ====================================================
"""
