"""What the aggregator and the edges must agree on. Each subpackage imports only those below it.

==============  ==============================================================================
``cli``         what both command lines share
``transfer``    PURE: models and updates in chunks; the receiver asks for them
``security``    TLS, kits, signatures, sealing
``masking``     PURE: the mathematics of masked sums
``protocol``    what is sent: messages, topics, codec, limits
``mqtt``        many connections to a broker on one thread; ``mqtt.paho`` alone imports paho
``system``      files, processes, memory, the broker program, and text for people
``tensors``     weights as named vectors: manifests, sections, encodings
``errors``      the errors that callers tell apart
``data``        the handwritten digits that ship with the package
==============  ==============================================================================
"""
