"""Makes the next model from updates.

==============  =================================================================
``worker``      the thread that receives, checks and averages updates
``uploads``     receives offered updates in chunks
``validation``  checks an update: sections, sizes, digest, finite values
``averaging``   makes one round's average, and the next model
``exact_sum``   a sum of float32 vectors that does not depend on their order
``strategies``  make the next model from an average
==============  =================================================================
"""
