"""TLS, kits, signatures and sealing (``docs/security.md``).

====================  ===========================================================
``tls``               certificates and TLS settings
``kit``               one file with all that an account needs
``kit_archive``       the members of that file
``kit_certificates``  checks the certificates of that file
``vouchers``          what the aggregator signs about an account
``signatures``        Ed25519 signatures of the aggregator's messages
``sealing``           end-to-end encryption of messages
``hpke``              RFC 9180 in authenticated mode
``verified``          decodes a received message after checking its signature
====================  ===========================================================
"""
