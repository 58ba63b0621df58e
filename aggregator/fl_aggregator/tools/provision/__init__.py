"""Accounts for a federation on a broker: ``fl-aggregator provision``.

======================  ==============================================================================
``accounts``            who exists: the register of names, roles and serial numbers, in a file
``authority``           certificates, the list of revoked ones, and the aggregator's own keys
``acl``                 who may read and write what, as Mosquitto's ACL file
``broker_files``        the other files of the broker: its configuration and its passwords
``kits``                makes, replaces and withdraws kits; what dies half-way is gone on with
``cli``                 the command line
======================  ==============================================================================
"""
