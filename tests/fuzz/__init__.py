"""Noise for both ends of the wire: ``mutations`` makes it, ``aggregator`` and ``edge`` are thrown into it.

Used by ``benchmarks/fuzz.py`` and (with ``strategies``) by the property tests. There is no broker in it: what is under
test is what our programs do with a message once it has come, so their connections are stood in for (``lines``). The
``witness`` has a second opinion on models; the ``speaker`` is an aggregator's words, and the ``hand`` an edge's work.
"""
