"""Certificates: the files that prove who a server or a client is, re-read when somebody renews them.

Certificates live for hours where a cluster issues them, servers for weeks. `CertificateFiles.current` looks at the
files whenever a connection is made (three `stat` calls) and reads them again once one changed; new connections use the
new certificate, those that stand keep theirs. Files are seldom replaced at one instant: a pair that does not fit
together, or is half-written, is not used; the last good one stays and the log says so.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tutelage.errors import SettingsError, TutelageError
from tutelage.files import read_bytes

__all__ = ["CertificateFiles", "Certificates", "ClientTls", "ServerTls"]

MAX_PEM_BYTES = 1024 * 1024
"""Bundles of all public authorities have a quarter of this."""


@dataclass(frozen=True)
class Certificates:
    """What is needed to speak TLS, in PEM; each part may be absent."""

    chain: bytes | None
    """Own certificate and those between it and the authority."""
    key: bytes | None = field(repr=False)
    """Private key of the first certificate in `chain`; never shown."""
    authorities: bytes | None
    """Whom to believe about the other side; None: the system's authorities."""


@dataclass(frozen=True)
class ServerTls:
    """TLS of a server: with a certificate it speaks TLS, with authorities too it demands certificates of clients."""

    certificate_file: Path | None = None
    """PEM file of the server's certificate chain; re-read when it changes. Absent: plain text, for loopback only."""
    key_file: Path | None = None
    """PEM file of the private key, not encrypted; re-read when it changes."""
    client_ca_file: Path | None = None
    """PEM file of the authorities that sign clients' certificates. Given: clients without one are refused (mTLS)."""

    def __post_init__(self) -> None:
        _need_pair(self.certificate_file, self.key_file)
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("client_ca_file needs certificate_file and key_file beside it")


@dataclass(frozen=True)
class ClientTls:
    """TLS of a client."""

    enabled: bool = False
    """Whether to speak TLS; false is plain text, for loopback only."""
    ca_file: Path | None = None
    """PEM file of the authorities that sign the server's certificate. Absent: the system's."""
    certificate_file: Path | None = None
    """PEM file of the client's own certificate chain, for servers that demand one; re-read when it changes."""
    key_file: Path | None = None
    """PEM file of the client's private key, not encrypted; re-read when it changes."""
    server_name: str | None = None
    """Name that the server's certificate must hold, where it differs from the host of the address."""

    def __post_init__(self) -> None:
        _need_pair(self.certificate_file, self.key_file)
        if not self.enabled and (self.ca_file or self.certificate_file):
            raise ValueError("files are named although enabled is false: set it to true, or name no files")


def _need_pair(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise ValueError("certificate_file and key_file go together: name both or none")


class CertificateFiles:
    """The certificates in some files, as they are now; safe to ask from any thread."""

    def __init__(self, *, certificate: Path | None, key: Path | None, authorities: Path | None) -> None:
        """Read the files.

        Raises:
            SettingsError: One cannot be read, is no PEM, or the key is not the certificate's.
        """
        self._paths = (certificate, key, authorities)
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._good = self._read()

    def current(self) -> Certificates:
        """What the files hold; the last that could be used where they cannot be at this moment."""
        with self._lock:
            signature = self._signature()
            if signature != self._seen:
                self._seen = signature
                self._renew()
            return self._good

    def _renew(self) -> None:
        names = [str(path) for path in self._paths if path]
        try:
            self._good = self._read()
        except TutelageError as error:
            structlog.get_logger().warning("certificates kept: the new ones fail", files=names, reason=error.message)
        else:
            structlog.get_logger().info("certificates renewed", files=names)

    def _signature(self) -> tuple[object, ...]:
        return tuple(_signature(path) for path in self._paths if path)

    def _read(self) -> Certificates:
        chain, key, authorities = (_pem(path) if path else None for path in self._paths)
        certificate_path, key_path, authorities_path = self._paths
        if authorities is not None:
            _first_certificate(authorities, authorities_path)
        if chain is not None and key is not None:
            _check_pair(chain, key, certificate_path, key_path)
        return Certificates(chain, key, authorities)


def _signature(path: Path) -> tuple[int, ...] | None:
    """Changes when the file does; links are followed, since a Kubernetes secret is renewed by turning one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _pem(path: Path) -> bytes:
    try:
        content = read_bytes(path, at_most=MAX_PEM_BYTES + 1)
    except TutelageError as error:
        raise SettingsError(error.message) from error
    if len(content) > MAX_PEM_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_PEM_BYTES} bytes: name a PEM file")
    return content


def _first_certificate(pem: bytes, path: Path | None) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise SettingsError(f"{path} holds no certificate in PEM: name one that does") from error


def _check_pair(chain: bytes, key: bytes, chain_path: Path | None, key_path: Path | None) -> None:
    certificate = _first_certificate(chain, chain_path)
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise SettingsError(f"{key_path} holds no private key in PEM without a password: name one that does") from error
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        raise SettingsError(f"{key_path} is not the key of the certificate in {chain_path}: name the pair")
