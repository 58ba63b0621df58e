"""PURE: the mathematics of masked sums, ``pairwise-1`` (``docs/privacy.md``); no broker, clock or thread.

=================  ===========================================================
``plan``           what all members of a masked round agree on, and its digest
``run_keys``       an edge's keys in a run, and how the enrolment key certifies them
``streams``        masks from seeds: AES-128 in counter mode
``shamir``         shares of secrets over GF(2^8)
``shares``         the seeds of a member, and its section ``shares``
``tallies``        the sums beside that of the weights: examples, losses
``masked_update``  what an edge makes of its integers
``answers``        what an edge checks before it signs a closing or opens shares
``unmasking``      what the aggregator joins and subtracts
=================  ===========================================================
"""
