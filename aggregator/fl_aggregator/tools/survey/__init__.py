"""What a survey has found: from the sums in a run directory to what people may see of them.

===========  ====================================================================
``cells``    leaves out what only a few examples have in common
``result``   counts, means, deviations and quantiles from the sums
``reading``  reads the sums in a run directory
``text``     the result as lines
===========  ====================================================================
"""
