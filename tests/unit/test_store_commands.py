"""`tutelage device rotate-key` and `receipt`: what they print, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from device_store import KEY, opened
from student_packages import DEVICE, STRANGER

from device_sim.pointer import Entry
from device_sim.receipt import Receipt
from tutelage.errors import CATALOGUE, Code
from tutelage.sealing import key_id, make_key, read_key
from tutelage.signing import public_pem, signer_id

RECEIPT = Receipt(
    person="hmac-sha256:" + "ab" * 32,
    device=signer_id(DEVICE.public_key()),
    asked="2026-01-02T03:04:05+00:00",
    done="2026-01-02T03:05:06+00:00",
    references=("sha256:" + "0" * 64,) * 2,
    samples=("sha256:" + "1" * 64,),
    decisions=7,
    students=(Entry("v3+1", "sha256:" + "2" * 64),),
    jobs=("v3+2",),
    student=Entry("v3", "sha256:" + "3" * 64),
    teacher="removed",
)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A device's folder with a key and an enrolled person."""
    (tmp_path / "store.key").write_text(KEY.hex())
    with opened(tmp_path / "store.sqlite") as store:
        store.enrol("anna", [rng.integers(0, 256, (16, 16), dtype=np.uint8)])
    return tmp_path


def test_a_key_is_changed_and_the_new_one_named(run, folder: Path):
    status, out, err = run("device", "rotate-key", folder)
    new = read_key(folder / "store.key")
    assert (status, err) == (0, "")
    assert (
        out
        == f"4 parts of the store and 0 files of jobs are sealed anew; the key is {key_id(new)} in {folder}/store.key\n"
    )
    assert new != KEY
    with opened(folder / "store.sqlite", key=new) as store:
        assert store.persons() == ("anna",)


def test_a_change_that_was_cut_off_is_finished_by_the_same_call(run, folder: Path):
    new = make_key(folder / "store.key.new")
    with opened(folder / "store.sqlite") as store:
        store.reseal(new)
    status, out, _ = run("device", "rotate-key", folder)
    assert (status, read_key(folder / "store.key")) == (0, new)
    assert out.startswith("the change of keys that was cut off is finished; ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--key-file", "{folder}/none"), Code.STORAGE_FAILED),
        (("--key-file", "{folder}/store.sqlite"), Code.KEY_WRONG),
        (("--key-file", "{folder}/other.key"), Code.KEY_WRONG),
        (("--new-key-file", "{folder}/store.key"), Code.USAGE),
    ],
)
def test_keys_that_cannot_be_used_change_nothing(run, folder: Path, words: tuple[str, ...], code: Code):
    make_key(folder / "other.key")
    status, out, err = run("device", "rotate-key", folder, *(word.format(folder=folder) for word in words))
    assert (status, out) == (CATALOGUE[code].exit_code, "")
    assert err.startswith(f"error [{code}]: ")
    with opened(folder / "store.sqlite") as store:
        assert store.persons() == ("anna",)


def test_a_folder_without_a_store_is_refused(run, tmp_path: Path):
    make_key(tmp_path / "store.key")
    status, _, err = run("device", "rotate-key", tmp_path)
    assert status == CATALOGUE[Code.USAGE].exit_code
    assert "is no store" in err


def test_a_receipt_is_checked_and_told(run, tmp_path: Path):
    file, key = tmp_path / "receipt.json", tmp_path / "device.pub"
    file.write_bytes(RECEIPT.signed(DEVICE))
    key.write_bytes(public_pem(DEVICE.public_key()))
    status, out, _ = run("device", "receipt", file, "--key", key)
    assert status == 0
    assert f"signed by {RECEIPT.device}" in out
    assert "erased: 2 references, 1 samples, 7 names" in out
    assert "students deleted: v3+1; then recognised: v3" in out
    assert "the teacher removed the person" in out
    status, out, _ = run("device", "receipt", file, "--key", key, "--json")
    assert json.loads(out)["students"] == [{"generation": "v3+1", "digest": "sha256:" + "2" * 64}]


def test_a_receipt_of_another_device_or_one_that_was_changed_is_refused(run, tmp_path: Path):
    file, key = tmp_path / "receipt.json", tmp_path / "device.pub"
    key.write_bytes(public_pem(DEVICE.public_key()))
    for data in (RECEIPT.signed(STRANGER), RECEIPT.signed(DEVICE).replace(b"v3+1", b"v3+9"), b"{}", b"\xff", b""):
        file.write_bytes(data)
        status, out, err = run("device", "receipt", file, "--key", key)
        assert (status, out) == (CATALOGUE[Code.USAGE].exit_code, ""), data
        assert "receipt" in err
