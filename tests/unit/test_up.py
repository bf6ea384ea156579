"""What `tutelage up` sets where nobody did: keys, folders and addresses, and nothing that was set."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from tutelage.cli import main
from tutelage.commands.up import environment_for
from tutelage.errors import CATALOGUE, Code
from tutelage.sealing import read_key
from tutelage.serving import KeyKind, Part
from tutelage.signing import read_public_key, read_signer

ADDRESS = "127.0.0.1:5"
KEYS = {"SIGNER_FILE": KeyKind.SIGNING, "DATA_KEY_FILE": KeyKind.SEALING, "TRUSTED_FILES": KeyKind.TRUST}
PART = Part("a-part", "A_", dict, lambda *_: None, keys=KEYS, together={"OTHER_ADDRESS": "{address}", "CALLERS": "x"})


def test_missing_keys_are_made_once_and_for_their_owner_alone(tmp_path: Path):
    first = environment_for([PART], tmp_path, ADDRESS, {})
    again = environment_for([PART], tmp_path, ADDRESS, {})
    assert first == again
    signer, public = (Path(first[f"TUTELAGE_A_{name}"]) for name in ("SIGNER_FILE", "TRUSTED_FILES"))
    assert read_signer(signer).public_key().public_bytes_raw() == read_public_key(public).public_bytes_raw()
    data = Path(first["TUTELAGE_A_DATA_KEY_FILE"])
    assert len(read_key(data)) == 32
    assert {stat.S_IMODE(path.stat().st_mode) for path in (signer, data)} == {0o600}


def test_parts_find_each_other_and_objects_lie_in_the_folder(tmp_path: Path):
    found = environment_for([PART], tmp_path, ADDRESS, {})
    assert (found["TUTELAGE_A_OTHER_ADDRESS"], found["TUTELAGE_SERVER_ADDRESS"]) == (ADDRESS, ADDRESS)
    assert found["TUTELAGE_STORES_OBJECTS_FOLDER"] == str(tmp_path / "objects")


def test_what_was_set_stays_and_what_is_empty_counts_as_absent(tmp_path: Path):
    key = tmp_path / "mine.key"
    was = {"TUTELAGE_A_DATA_KEY_FILE": str(key), "TUTELAGE_A_CALLERS": "y", "TUTELAGE_A_OTHER_ADDRESS": ""}
    found = environment_for([PART], tmp_path, ADDRESS, {**was, "TUTELAGE_STORES_OBJECTS_ADDRESS": "s3:9000"})
    assert (found["TUTELAGE_A_DATA_KEY_FILE"], found["TUTELAGE_A_CALLERS"]) == (str(key), "y")
    assert found["TUTELAGE_A_OTHER_ADDRESS"] == ADDRESS
    assert "TUTELAGE_STORES_OBJECTS_FOLDER" not in found
    assert not key.exists()


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", ":5"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str):
    with pytest.raises(SystemExit) as ended:
        main(["up", "--folder", str(tmp_path / "up"), "--address", address])
    assert ended.value.code == CATALOGUE[Code.SETTING_INVALID].exit_code
    assert not (tmp_path / "up").exists()
