"""The test vectors of ``docs/vectors``, for edges in other languages: a module has the content of a file.

===============  ===========================================================
``messages``     the bytes of every kind of message
``digests``      BLAKE3, manifests, contents
``chunks``       a model's and an update's messages, cut in chunks
``encodings``    the encodings of sections
``signatures``   signed messages;  ``seals``: vouchers and sealed messages
``seeds``        seeds, random numbers, partitions
``training``     first weights and a few steps of dense models
``masking``      masked rounds
===============  ===========================================================
"""
