"""Creates accounts for a federation on a broker: ``fl-aggregator provision``.

======================  ==============================================================================
``accounts``            the register of accounts, with their roles and serial numbers, in a file
``authority``           certificates, the list of revoked ones, and the keys of enrolment and aggregator
``enrolment``           vouches for accounts
``acl``                 what each account may read and write, as Mosquitto's ACL file
``broker_files``        the other files of the broker: its configuration and its passwords
``revocations``         the list of revoked kits for the aggregator
``requests``            requests for kits, from devices that keep their private keys
``kit_contents``        what is in a kit
``kits``                makes, replaces and revokes kits; completes a change that was interrupted
``cli``                 the command line;  ``arguments``: what its options mean
======================  ==============================================================================
"""
