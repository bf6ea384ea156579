"""Certificate authorities and certificates that tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates for this machine's loopback name, and for others that it is asked for."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = _signed(self._name, self._name, self._key, self._key, authority=True)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def issue(self, folder: Path, name: str, *hosts: str) -> tuple[Path, Path]:
        """Certificate and key of `name`, who also answers as `hosts`, as files in `folder`; older ones are replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(_name(name), self._name, key, self._key, authority=False, hosts=hosts)
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(subject, issuer, key, signer, *, authority: bool, hosts: Sequence[str] = ()) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        uri = x509.UniformResourceIdentifier(f"spiffe://tutelage/{subject.rfc4514_string().removeprefix('CN=')}")
        names = x509.SubjectAlternativeName([*(x509.DNSName(host) for host in ("localhost", *hosts)), uri])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def reissued(certificate: bytes, authority: bytes, authority_key: bytes) -> tuple[bytes, bytes]:
    """A certificate and its key like one that there is, of the same authority, valid for a day; all in PEM."""
    old, signer = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(authority)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, critical=False)
    )
    made = builder.sign(load_pem_private_key(authority_key, password=None), hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), private
