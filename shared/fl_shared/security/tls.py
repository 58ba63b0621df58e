"""TLS to the broker: trusted authorities, the broker's key, the client certificate, and errors in them.

The host name is always checked; no option turns that off. An error in a certificate is reported in one line
that names the certificate and says what to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from fl_shared.errors import UserError, WrongBrokerKey
from fl_shared.system.files import read_at_most, warn_if_others_may_read

MAX_PEM: Final = 4 * 2**20
"""Bytes of the largest PEM file; all authorities of a system take a quarter of a megabyte."""
PIN_BYTES: Final = 32
"""Bytes of a `public_key_pin`."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates and keys in PEM. ``ca``: authorities of the broker, None for those of the system.

    ``cert`` (with intermediate certificates) and ``key`` identify the client; both are given, or neither.
    ``broker_pin``: the `public_key_pin` of the only key that the broker may have, None for any.
    """

    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    broker_pin: bytes | None = None

    @classmethod
    def read(cls, ca: Path | None, cert: Path | None, key: Path | None) -> Self:
        """Reads PEM files. Raises ``UserError``, which names the option and what was expected."""
        if cert is not None and key is None:
            raise UserError("--cert without --key: expected both, a certificate and its key")
        if key is not None and cert is None:
            raise UserError("--key without --cert: expected both, a certificate and its key")
        read = cls(
            ca=None if ca is None else _read_pem("--ca", ca, b"CERTIFICATE"),
            cert=None if cert is None else _read_pem("--cert", cert, b"CERTIFICATE"),
            key=None if key is None else _read_pem("--key", key, b"PRIVATE KEY", secret=True),
        )
        try:
            cls(ca=read.ca).context()
        except (ssl.SSLError, ValueError):
            raise UserError(f"--ca {ca}: not certificates in PEM") from None
        try:
            read.context()
        except (ssl.SSLError, ValueError):
            raise UserError(
                f"--cert {cert}, --key {key}: expected a certificate in PEM and its key"
            ) from None
        return read

    def context(self) -> ssl.SSLContext:
        """A TLS context for any number of connections to the broker. It leaves no key in a file.

        Raises ``ssl.SSLError`` or ``ValueError`` for an invalid certificate or key.
        """
        authorities = None if self.ca is None else self.ca.decode("ascii")
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None and self.key is not None:
            with _temporary_file(self.cert + b"\n" + self.key) as name:
                # For a key with a password, OpenSSL would ask for it at the terminal.
                context.load_cert_chain(name, password=b"")
        if self.broker_pin is not None:
            context.sslsocket_class = _pinned_socket(self.broker_pin)
        return context


def public_key_pin(der: bytes) -> bytes:
    """The SHA-256 (32 bytes) of the public key in a certificate (DER), as in RFC 7469, 2.4."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(der).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _pinned_socket(pin: bytes) -> type[ssl.SSLSocket]:
    class PinnedSocket(ssl.SSLSocket):
        """Ends the handshake with `WrongBrokerKey` unless the server has the expected key."""

        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            certificate = self.getpeercert(binary_form=True)
            if certificate is None or public_key_pin(certificate) != pin:
                raise WrongBrokerKey

    return PinnedSocket


def _read_pem(option: str, path: Path, label: bytes, *, secret: bool = False) -> bytes:
    try:
        content, mode = read_at_most(path, MAX_PEM + 1)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from None
    if len(content) > MAX_PEM or label not in content or not content.isascii():
        raise UserError(f"{option} {path}: expected PEM (-----BEGIN … {label.decode()}-----)")
    if secret and b"ENCRYPTED" in content:
        raise UserError(
            f"{option} {path}: the key has a password; expected one without, readable by this program's user only"
        )
    if secret:
        warn_if_others_may_read(option, path, mode)
    return content


@contextlib.contextmanager
def _temporary_file(content: bytes) -> Iterator[str]:
    """The name of a temporary file with ``content`` that other users cannot read.

    OpenSSL reads keys only from files. On Linux the file is in memory, so no directory has to be writable.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("fl-key")  # exec closes it in child processes
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="fl-key-") as file:
            file.write(content)
            file.flush()
            yield file.name
