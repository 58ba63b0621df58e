"""Weights as named vectors; independent of messages and brokers.

====================  ===========================================================
``manifest``          names, shapes and offsets of a model's arrays
``digest``            the digests of manifests, models and updates
``spans``             where the parameters and the buffers of a vector are
``norms``             the length of an update
``fixed_point``       weighted values as integers, which all sides round alike
``sections``          named vectors with their manifests: a model, or an update
``encodings``         how the values of a section become bytes
``safetensors_file``  the header of a safetensors file
====================  ===========================================================
"""
