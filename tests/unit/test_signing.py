from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tutelage.errors import Code, StorageError
from tutelage.files import atomic_write
from tutelage.signing import is_signed_by, make_signer, public_pem, public_raw, read_public_key, read_signer, signer_id


def test_a_signer_is_private_and_read_back(tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "device.pem")
    assert stat.S_IMODE((tmp_path / "device.pem").stat().st_mode) == 0o600
    again = read_signer(tmp_path / "device.pem")
    assert public_raw(again.public_key()) == public_raw(signer.public_key())
    assert again.sign(b"data") == signer.sign(b"data")


def test_a_signer_is_never_overwritten(tmp_path: Path) -> None:
    make_signer(tmp_path / "device.pem")
    before = (tmp_path / "device.pem").read_bytes()
    with pytest.raises(StorageError) as caught:
        make_signer(tmp_path / "device.pem")
    assert caught.value.code is Code.STORAGE_FAILED
    assert (tmp_path / "device.pem").read_bytes() == before


def test_the_public_half_travels_as_pem(tmp_path: Path) -> None:
    key = make_signer(tmp_path / "device.pem").public_key()
    atomic_write(tmp_path / "device.pub", public_pem(key))
    assert public_raw(read_public_key(tmp_path / "device.pub")) == public_raw(key)
    assert len(public_raw(key)) == 32


def test_a_certificate_gives_its_key(tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "device.pem")
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fleet")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(signer.public_key())
    over = builder.serial_number(1).not_valid_before(now - timedelta(days=2)).not_valid_after(now - timedelta(days=1))
    atomic_write(tmp_path / "device.crt", over.sign(signer, None).public_bytes(Encoding.PEM))
    assert public_raw(read_public_key(tmp_path / "device.crt")) == public_raw(signer.public_key())


def test_a_certificate_of_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    path = Authority("other").write(tmp_path / "other.crt")
    with pytest.raises(StorageError) as caught:
        read_public_key(path)
    assert caught.value.code is Code.KEY_WRONG


def test_names_differ_between_keys_and_not_between_readings(tmp_path: Path) -> None:
    key = make_signer(tmp_path / "a.pem").public_key()
    assert signer_id(key) == signer_id(read_signer(tmp_path / "a.pem").public_key())
    assert signer_id(key) != signer_id(make_signer(tmp_path / "b.pem").public_key())
    assert len(signer_id(key)) == len("ed25519:") + 16


def test_knows_the_signer_of_rfc_8032() -> None:
    """RFC 8032 §7.1, test 2."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    signer = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    assert signer.sign(b"\x72") == signature
    assert is_signed_by([signer.public_key()], signature, b"\x72")


def test_one_trusted_key_is_enough_and_none_never() -> None:
    signer, other = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    signature = signer.sign(b"data")
    assert is_signed_by([other.public_key(), signer.public_key()], signature, b"data")
    assert not is_signed_by([other.public_key()], signature, b"data")
    assert not is_signed_by([], signature, b"data")
    assert not is_signed_by([signer.public_key()], signature, b"dat")
    for broken in (b"", signature[:-1], signature + b"\x00", bytes(64)):
        assert not is_signed_by([signer.public_key()], broken, b"data")


def foreign_keys() -> list[bytes]:
    curve = ec.generate_private_key(ec.SECP256R1())
    ours = ed25519.Ed25519PrivateKey.generate()
    return [
        b"",
        b"no key",
        bytes(100_000),
        curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ours.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")),
        ours.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()),
    ]


@pytest.mark.parametrize("read", [read_signer, read_public_key])
def test_files_that_hold_another_kind_of_key(tmp_path: Path, read) -> None:
    for content in foreign_keys():
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(StorageError, match="in PEM: name the file of one") as caught:
            read(tmp_path / "key")
        assert caught.value.code is Code.KEY_WRONG


@pytest.mark.parametrize("read", [read_signer, read_public_key])
def test_a_file_that_is_not_there(tmp_path: Path, read) -> None:
    with pytest.raises(StorageError) as caught:
        read(tmp_path / "key")
    assert caught.value.code is Code.STORAGE_FAILED
