"""PURE: what an edge counts and adds up of its data in a survey, and what the federation's sums mean.

===============  =======================================================================
``terms``        what a survey asks for, as a part of the task's name
``layout``       the arrays of the vector of sums, and the columns that they tell
``digits``       whole numbers as digits, whose float32 sums are exact
``moments``      Σx and Σx² as exact whole numbers
``bins``         in which bin of a histogram a value lies
``proportions``  the vector of a survey under a privacy budget, whose length is bounded
===============  =======================================================================
"""
