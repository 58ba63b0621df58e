"""Encodings of sections: one file each, and their registry.

=============  ====================================================================
``registry``   the encodings by name; checked when it is imported
``interface``  what every encoding offers: size, encode, decode, check
``float32``    ``f32``, little-endian float32
=============  ====================================================================
"""
