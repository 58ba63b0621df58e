"""The encodings of sections, one file each, and their registry.

=============  ====================================================================
``registry``   the encodings by name, checked on import
``interface``  the methods of every encoding: size, encode, decode, check
``float32``    ``f32``, little-endian float32
``integers``   ``sum``, little-endian int64: the sums of regional aggregators
=============  ====================================================================
"""
