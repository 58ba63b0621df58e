"""Makes the next model from updates.

==================  =================================================================
``worker``          the thread that receives, checks and averages updates
``uploads``         receives offered updates in chunks
``validation``      checks an update: sections, digest, finite values;  ``masked_validation``
``averaging``       makes the next model;  ``serving``: the mean of the last versions
``combining``       combines the updates of a round as its strategy says;  ``separate_updates``: one by one
``regional_sum``    the sum of a region;  ``masked_round``, ``masked_sum``: that of masked updates
``exact_sum``       a sum of float32 vectors that does not depend on their order;  ``release_noise``: added to it
``inner_products``  inner products that do not, either
``similarity``      who is unlike the others
``strategies``      the parts of strategies
==================  =================================================================
"""
