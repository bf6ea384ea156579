"""How a port answers who knocks with a certificate, with a wrong one, with none, or in plain text."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509

from tutelage.settings import Address
from tutelage.tls import ClientTls

WAIT_S = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
"""With what every HTTP/2 connection begins; a server that lets the client in answers with its own settings."""


def trusting(authority: Path) -> ssl.SSLContext:
    """A client that knows the server's authority, and has no certificate of its own."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2"])
    return context


def admitted(address: Address, context: ssl.SSLContext) -> bool:
    """Whether a server goes on to speak HTTP/2 with this client, rather than close the connection.

    In TLS 1.3 a client is told of a refusal after its own side of the handshake is done, if at all.
    """
    with socket.create_connection((address.host, address.port), WAIT_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as door:
                door.sendall(PREFACE)
                return bool(door.recv(9))
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            return False


def admitted_with(address: Address, proof: ClientTls, certificate: tuple[Path, Path] | None = None) -> bool:
    """The same with a certificate and its key: those of `proof`, unless others are given."""
    context = trusting(proof.ca_file)
    context.load_cert_chain(*(certificate or (proof.certificate_file, proof.key_file)))
    return admitted(address, context)


def answer_in_plain(address: Address) -> bytes:
    """What a server sends back to HTTP/2 in plain text before it closes."""
    with socket.create_connection((address.host, address.port), WAIT_S) as door:
        door.sendall(PREFACE)
        try:
            return door.recv(1024)
        except ConnectionResetError:
            return b""


def serial_number(address: Address, proof: ClientTls) -> int:
    """Of the certificate that a server shows on a new connection."""
    context = trusting(proof.ca_file)
    context.load_cert_chain(proof.certificate_file, proof.key_file)
    with (
        socket.create_connection((address.host, address.port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as door,
    ):
        return x509.load_der_x509_certificate(door.getpeercert(binary_form=True)).serial_number
