"""The attack suite: what a malicious client or broker tries against a run, what refuses it, and where that shows.

``cluster``            a broker, an aggregator and three honest edges in the middle of a round, and their attackers
``attack``             one attack: who tries it, where it is refused, what is seen of it
``authentication``     connecting without an account, or as another one
``impersonation``      speaking in the name of others
``eavesdropping``      reading or intercepting what is for others
``invalid_messages``   messages on one's own topics that no honest edge sends
``malicious_broker``   what the operator of the broker can try where the broker is not trusted
``entitlement``        roles that a kit does not have, and kits that are revoked
``masked_adversary``   what an aggregator and its colluders can compute of masked sums
``played_aggregator``  a masked run for it, of honest edges without messages
``masked_sums``        attacks on masked sums, which other tests make
``table``              all attacks, in the order of docs/security.md
"""
