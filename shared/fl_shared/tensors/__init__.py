"""Weights as named vectors; knows no message and no broker.

====================  ===========================================================
``manifest``          names, shapes and offsets of a model's arrays; the content digest
``sections``          named vectors with their manifests: a model, or an update
``encodings``         how the values of a section lie in bytes
``safetensors_file``  what stands before the data in a safetensors file
====================  ===========================================================
"""
