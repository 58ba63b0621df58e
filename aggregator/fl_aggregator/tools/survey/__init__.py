"""What a survey has found: from the sums in a run directory to what people may see of them.

==============  ====================================================================
``cells``       leaves out what only a few examples have in common
``result``      counts, means, deviations and quantiles from the sums
``noisy``       the same from a mean with noise, and how far it may be off
``reading``     reads the sums, or the noisy mean, in a run directory
``text``        the result as lines
``noisy_text``  that of a survey with noise as lines and tables
==============  ====================================================================
"""
