"""Weights as named vectors; independent of messages and brokers.

====================  ===========================================================
``manifest``          names, shapes and offsets of a model's arrays; the content digest
``sections``          named vectors with their manifests: a model, or an update
``encodings``         how the values of a section become bytes
``safetensors_file``  the header of a safetensors file
====================  ===========================================================
"""
