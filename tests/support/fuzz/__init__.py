"""Fuzzing of both ends of the wire; used by ``benchmarks/fuzz.py`` and by the property tests.

There is no broker in it: what is tested is what the programs do with a message that has arrived.

``mutations``             makes valid messages invalid
``strategies``            the same mutations for Hypothesis
``loop_harness``          drives a real aggregator, one message at a time
``aggregator_harness``    with the edges of a run whose updates are seen
``masked_harness``        with the members of a run whose updates are masked
``edge_harness``          drives real edges
``fake_network``          stands in for their connections
``inline_pool``           stands in for the worker processes of an edge
``aggregator_messages``   what a correct aggregator sends to edges
``model_oracle``          computes in another way what each model has to be
"""
