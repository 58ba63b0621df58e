"""TLS, kits, signatures and sealing (``docs/security.md``).

====================  ===========================================================
``tls``               certificates and TLS settings
``kit``               one file with all that an account needs
``kit_archive``       the members of that file
``kit_certificates``  checks the certificates of that file
``vouchers``          what the enrolment key signs about an account
``revocations``       the list of revoked kits, which it signs as well
``signatures``        Ed25519 signatures of messages, and of vouchers
``sealing``           end-to-end encryption of messages;  ``operator_seals``: from edge to operator
``hpke``              RFC 9180 in authenticated mode
``verified``          decodes a received message after checking its signature
====================  ===========================================================
"""
