"""What only one kind of object store can suffer: a full disk, a server that is away, an answer that is lost."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from datetime import timedelta

import pytest

pytest.importorskip("minio")

import urllib3
from object_makers import MIB, Clock, at_once, code, digest_of, s3, whole

from tutelage.errors import Code, ObjectError, StorageError
from tutelage.folder_objects import FolderObjects


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def real(minio_server, clock):
    store = s3(minio_server, clock)
    store.ensure_bucket()
    store.ensure_bucket()
    return store


# --- the folder's own faults ---


def test_a_key_inside_another_is_a_typed_error(tmp_path):
    store = FolderObjects(tmp_path)
    store.create("manifests/a", b"x")
    with pytest.raises(ObjectError) as raised:
        store.create("manifests/a/b", b"y")
    assert code(raised) is Code.OBJECT_KEY


def test_a_full_disk_is_a_typed_error_and_leaves_nothing(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        store = FolderObjects(folder)
        with pytest.raises(StorageError) as raised:
            store.put([b"x" * MIB, b"x" * MIB])
        assert code(raised) is Code.STORAGE_FULL
        with pytest.raises(StorageError) as raised:
            store.create("manifests/large", b"x" * 2 * MIB)
        assert code(raised) is Code.STORAGE_FULL
        assert store.list().keys == ()
        assert whole(store, store.put([b"x" * 1000]).key) == b"x" * 1000
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_sweep_of_the_folder_removes_old_unfinished_writes_only(tmp_path, clock):
    store = FolderObjects(tmp_path, clock=clock)
    old, new = tmp_path / ".incoming/old", tmp_path / ".incoming/new"
    for path, age in ((old, timedelta(days=2)), (new, timedelta(hours=1))):
        path.write_bytes(b"x")
        seconds = (clock.now - age).timestamp()
        os.utime(path, (seconds, seconds))
    store.sweep()
    assert (old.exists(), new.exists()) == (False, True)


def test_two_stores_on_one_folder_exclude_each_other(tmp_path):
    first, second = FolderObjects(tmp_path), FolderObjects(tmp_path)
    tag = first.create("channels/stable", b"v1")
    found = at_once(
        [lambda s=s: s.replace("channels/stable", b"v2" + bytes([s is first]), tag=tag) for s in (first, second)]
    )
    assert found.count(Code.OBJECT_CONFLICT) == 1


# --- the server's own faults ---


def test_a_flipped_byte_on_the_servers_disk_never_comes_out_as_data(real, minio_server):
    data = secrets.token_bytes(2 * MIB)
    key = real.put([data]).key
    (part,) = (minio_server.folder / "data" / real._bucket / key).glob("*/part.1")
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    with pytest.raises(ObjectError) as raised:
        whole(real, key)
    assert code(raised) in {Code.OBJECT_CORRUPT, Code.OBJECTS_UNAVAILABLE, Code.OBJECT_MISSING}


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_server_that_is_away_or_frozen_is_a_typed_error_in_time_and_comes_back(minio_server, fault):
    store = s3(minio_server, within=0.5)
    store.ensure_bucket()
    stored = store.put([b"x" * MIB])
    tag = store.create("channels/stable", b"v1")
    getattr(minio_server, fault)()
    calls = [
        lambda: store.put([b"y"]),
        lambda: store.put([b"y"], digest=digest_of(b"y")),
        lambda: store.size(stored.key),
        lambda: whole(store, stored.key),
        lambda: store.create("manifests/x", b"x"),
        lambda: store.replace("channels/stable", b"v2", tag=tag),
        lambda: store.get("channels/stable"),
        store.list,
        lambda: store.delete("channels/stable"),
        store.sweep,
    ]
    try:
        start = time.monotonic()
        assert at_once(calls) == [Code.OBJECTS_UNAVAILABLE] * len(calls)
        assert time.monotonic() - start < 6
    finally:
        minio_server.thaw() if fault == "freeze" else minio_server.start()
    assert whole(store, stored.key) == b"x" * MIB


def test_wrong_credentials_and_a_missing_bucket_are_refused_not_retried(real, minio_server):
    for store in (s3(minio_server, secret="wrong-secret"), s3(minio_server)):
        for call in (store.list, lambda s=store: s.put([b"x"]), lambda s=store: s.create("m", b"x")):
            with pytest.raises(ObjectError) as raised:
                call()
            assert code(raised) is Code.OBJECTS_REFUSED


def test_a_conditional_write_whose_answer_was_lost_succeeds_by_its_own_bytes_only(real, monkeypatch):
    send = real._http.request

    def answer_lost(*words, **options):
        monkeypatch.setattr(real._http, "request", send)
        send(*words, **options)
        raise urllib3.exceptions.ProtocolError("connection aborted")

    monkeypatch.setattr(real._http, "request", answer_lost)
    tag = real.create("channels/stable", b"mine")
    assert real.get("channels/stable").tag == tag
    monkeypatch.setattr(real._http, "request", answer_lost)
    with pytest.raises(ObjectError) as raised:
        real.create("channels/stable", b"another's")
    assert code(raised) is Code.OBJECT_CONFLICT
