"""The encodings of sections, one file each, and their registry.

=============  ====================================================================
``registry``   the encodings by name, checked on import
``interface``  the methods of every encoding: size, encode, decode a block, check
``section``    how an encoding is applied to the parameters and buffers of a section
``float32``    ``f32``, little-endian float32
``shuffle``    ``shuffle-deflate``, the bytes of equal place together, packed with DEFLATE
``bfloat16``   ``bf16``, the upper half of each float32
``int8``       ``q8``, blocks of 8-bit integers with a scale each
``topk``       ``topk:RATIO``, the largest values and their places
``integers``   ``sum``, little-endian int64: the sums of regional aggregators
``masked``     ``masked32`` to ``masked64``, integers modulo 2^bits under a mask; ``raw``, bytes
=============  ====================================================================
"""
