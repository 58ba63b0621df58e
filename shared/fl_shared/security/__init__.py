"""TLS, kits, signatures and sealing (``docs/security.md``).

====================  ============================================================
``tls``               certificates and TLS settings
``kit``               one file with all that an account needs;  ``kit_archive``: its
                      members;  ``kit_description``, ``kit_certificates``: what is in them
``kit_request``       a device's request for a kit;  ``device_keys``: what stays there
``vouchers``          what the enrolment key signs about an account;  ``key_fields``: keys in JSON
``revocations``       the list of revoked kits, which it signs as well
``signatures``        Ed25519, of messages and vouchers;  ``key_conversion``: to X25519
``sealing``           end-to-end encryption;  ``operator_seals``: from an edge to the operator
``hpke``              RFC 9180 in authenticated mode
``verified``          decodes a received message after checking its signature
====================  ============================================================
"""
