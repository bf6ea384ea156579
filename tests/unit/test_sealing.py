from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tutelage.errors import Code, StorageError
from tutelage.sealing import OVERHEAD_BYTES, make_key, open_sealed, read_key, seal, seal_alike

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PLAIN = b"a capture of a person"


def code_of(data: bytes, key: bytes = KEY, purpose: str = "captures") -> Code:
    with pytest.raises(StorageError) as caught:
        open_sealed(data, key, purpose=purpose)
    return caught.value.code


@pytest.mark.parametrize("data", [b"", b"\x00", PLAIN, bytes(100_000)])
def test_opens_to_what_was_sealed(data: bytes) -> None:
    sealed = seal(data, KEY, purpose="captures")
    assert open_sealed(sealed, KEY, purpose="captures") == data
    assert len(sealed) == len(data) + OVERHEAD_BYTES


def test_shows_nothing_of_the_content_or_the_key() -> None:
    sealed = seal(PLAIN, KEY, purpose="captures")
    assert PLAIN[:8] not in sealed
    assert KEY[:4] not in sealed


def test_never_uses_a_nonce_twice() -> None:
    sealed = {seal(PLAIN, KEY, purpose="captures") for _ in range(200)}
    assert len({part[13:25] for part in sealed}) == 200


def test_is_the_standard_cipher_in_the_documented_layout() -> None:
    sealed = seal(PLAIN, KEY, purpose="captures")
    assert sealed[:5] == b"TSEA\x01"
    assert AESGCM(KEY).decrypt(sealed[13:25], sealed[25:], sealed[:13] + b"captures") == PLAIN


def test_wrong_key_is_told_from_damage() -> None:
    sealed = seal(PLAIN, KEY, purpose="captures")
    assert code_of(sealed, OTHER) is Code.KEY_WRONG
    assert code_of(sealed, purpose="features") is Code.STORE_CORRUPT
    assert code_of(sealed[:-1] + bytes([sealed[-1] ^ 1])) is Code.STORE_CORRUPT


def test_wrong_key_names_both_keys_but_shows_neither() -> None:
    with pytest.raises(StorageError) as caught:
        open_sealed(seal(PLAIN, KEY, purpose="captures"), OTHER, purpose="captures")
    assert caught.value.exit_code == 54
    assert seal(b"", KEY, purpose="")[5:13].hex() in caught.value.message
    assert seal(b"", OTHER, purpose="")[5:13].hex() in caught.value.message
    assert OTHER.hex() not in caught.value.message


def test_every_flipped_bit_is_noticed() -> None:
    sealed = seal(PLAIN, KEY, purpose="captures")
    codes = set()
    for position in range(len(sealed)):
        for bit in range(8):
            flipped = bytearray(sealed)
            flipped[position] ^= 1 << bit
            codes.add((position in range(5, 13), code_of(bytes(flipped))))
    assert codes == {(True, Code.KEY_WRONG), (False, Code.STORE_CORRUPT)}


def test_every_shortening_and_lengthening_is_noticed() -> None:
    sealed = seal(PLAIN, KEY, purpose="captures")
    assert {code_of(sealed[:length]) for length in range(len(sealed))} == {Code.STORE_CORRUPT}
    assert code_of(sealed + b"\x00") is Code.STORE_CORRUPT


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(31), bytes(33)])
def test_keys_have_32_bytes(key: bytes) -> None:
    with pytest.raises(StorageError, match="a key has 32 bytes") as caught:
        seal(PLAIN, key, purpose="captures")
    assert caught.value.code is Code.KEY_WRONG
    assert code_of(seal(PLAIN, KEY, purpose="captures"), key) is Code.KEY_WRONG


def test_key_files_are_private_and_read_back(tmp_path: Path) -> None:
    key = make_key(tmp_path / "fleet.key")
    assert len(key) == 32
    assert read_key(tmp_path / "fleet.key") == key
    assert stat.S_IMODE((tmp_path / "fleet.key").stat().st_mode) == 0o600
    assert (tmp_path / "fleet.key").read_text() == key.hex() + "\n"
    assert make_key(tmp_path / "other.key") != key


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    key = make_key(tmp_path / "fleet.key")
    with pytest.raises(StorageError) as caught:
        make_key(tmp_path / "fleet.key")
    assert caught.value.code is Code.STORAGE_FAILED
    assert read_key(tmp_path / "fleet.key") == key


@pytest.mark.parametrize("text", [b"", b"0" * 63, b"0" * 66, b"g" * 64, b"\xff" * 64, b"0" * 100_000])
def test_a_file_that_holds_no_key(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "fleet.key").write_bytes(text)
    with pytest.raises(StorageError, match="is not a key file") as caught:
        read_key(tmp_path / "fleet.key")
    assert caught.value.code is Code.KEY_WRONG


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        read_key(tmp_path / "fleet.key")
    assert caught.value.code is Code.STORAGE_FAILED


def test_sealed_alike_equal_data_are_equal_bytes_and_nothing_else_is() -> None:
    first = seal_alike(PLAIN, KEY, purpose="captures")
    assert seal_alike(PLAIN, KEY, purpose="captures") == first
    assert open_sealed(first, KEY, purpose="captures") == PLAIN
    # With a nonce of its own for each data, purpose and key: one used twice would give the plain texts away.
    others = [(PLAIN + b"!", KEY, "captures"), (PLAIN, OTHER, "captures"), (b"s" + PLAIN, KEY, "capture")]
    nonces = {seal_alike(data, key, purpose=purpose)[13:25] for data, key, purpose in others}
    assert len(nonces | {first[13:25]}) == 4
    assert first[13:25] != seal(PLAIN, KEY, purpose="captures")[13:25]
    assert code_of(first, OTHER) is Code.KEY_WRONG
    assert code_of(first, purpose="another") is Code.STORE_CORRUPT
