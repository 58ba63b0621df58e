"""From updates to the next model.

==============  =================================================================
``worker``      the thread that receives, checks and averages updates
``uploads``     offered updates, received in chunks
``validation``  whether an update is what it must be: sizes, digest, finite values
``averaging``   one round's average, and the next model
``exact_sum``   a sum of float32 vectors that does not depend on their order
``strategies``  how an average becomes the next model
==============  =================================================================
"""
