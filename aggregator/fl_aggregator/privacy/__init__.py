"""PURE: what the versions of a run tell about one edge: differential privacy of Gaussian noise in the exact sum.

====================  ===========================================================
``plan``              how much noise a run adds, and who may contribute when
``accounting``        what has been spent, and by whom
``noise_length``      how long the noise is beside the updates
``ledger``            what earlier runs have told
``correlated_noise``  noise whose parts of later versions cancel earlier ones
``subsampled``        what releases of secret cohorts spend
``adaptive_clip``     a clip that follows the median of the updates' norms
``bounded_mean``      the noisy mean of one number from 0 to 1 of each edge
====================  ===========================================================
"""
