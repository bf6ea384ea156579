"""What every object store promises, on the twin in a folder and on a real MinIO."""

from __future__ import annotations

import hashlib
import io
import itertools
import secrets
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta

import pytest

pytest.importorskip("minio")

from object_makers import MIB, Clock, at_once, code, digest_of, s3, whole

from tutelage.errors import Code, ObjectError, StorageError
from tutelage.folder_objects import FolderObjects
from tutelage.objects import Stored, object_key

WRITERS = 100
BAD_KEYS = ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", "a\nb", ".locks/x"]
BAD_KEYS += ["a\\b", "ä", "x" * 513, "a/" + "x" * 201, "C:/x", "a b"]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def real(minio_server, clock):
    store = s3(minio_server, clock)
    store.ensure_bucket()
    store.ensure_bucket()
    return store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path, clock):
    return (
        FolderObjects(tmp_path / "objects", clock=clock)
        if request.param == "folder"
        else request.getfixturevalue("real")
    )


@pytest.mark.parametrize("data", [b"", b"x", b"one capture" * 1000], ids=["empty", "byte", "some"])
@pytest.mark.parametrize("known", ["digest and size", "digest", "size", "nothing"])
def test_what_was_put_is_read_by_its_digest(store, data, known):
    words = {"digest": digest_of(data) if "digest" in known else None, "size": len(data) if "size" in known else None}
    stored = store.put([data[:5], b"", data[5:]], **words)
    assert stored == Stored(object_key(digest_of(data)), digest_of(data), len(data))
    assert whole(store, stored.key) == data
    assert store.size(stored.key) == len(data)


@pytest.mark.parametrize("is_known", [True, False], ids=["digest", "no-digest"])
def test_a_large_object_streams_in_parts_without_being_held_whole(store, is_known):
    block = secrets.token_bytes(MIB)
    digest = hashlib.sha256(block * 100).hexdigest()
    tracemalloc.start()
    stored = store.put(itertools.repeat(block, 100), digest=f"sha256:{digest}" if is_known else None)
    state = hashlib.sha256()
    for chunk in store.read(stored.key):
        state.update(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored.digest == f"sha256:{digest}" == f"sha256:{state.hexdigest()}"
    assert peak < 70 * MIB


@pytest.mark.parametrize("words", [{}, {"digest": True}, {"digest": True, "size": True}], ids=str)
def test_views_of_memory_are_stored_as_bytes_are(store, words):
    data = secrets.token_bytes(3 * MIB)
    known = {"digest": digest_of(data), "size": len(data)}
    pieces = (memoryview(data)[start : start + MIB] for start in range(0, len(data), MIB))
    assert whole(store, store.put(pieces, **{name: known[name] for name in words}).key) == data


def test_the_same_bytes_again_are_the_same_object(store):
    assert store.put([b"same"]) == store.put([b"sa", b"me"], digest=digest_of(b"same"))
    assert len(store.list("objects/").keys) == 1


@pytest.mark.parametrize("size", [3, 20 * MIB])
def test_bytes_with_another_digest_leave_nothing_visible(store, size):
    with pytest.raises(ObjectError) as raised:
        store.put([b"x" * size], digest=digest_of(b"other"))
    assert code(raised) is Code.OBJECT_CORRUPT
    assert store.list().keys == ()


@pytest.mark.parametrize("is_known", [True, False], ids=["digest", "no-digest"])
def test_a_put_that_breaks_half_way_leaves_nothing_visible(store, is_known):
    def broken() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * MIB
        raise ConnectionAbortedError("the sender went away")

    with pytest.raises((ConnectionAbortedError, StorageError)):
        store.put(broken(), digest=digest_of(b"x" * 80 * MIB) if is_known else None)
    assert store.list().keys == ()


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (0, 0, b""), (10, None, b""), (8, 99, b"89")],
)
def test_a_part_is_read_from_an_offset(store, offset, length, expected):
    key = store.put([b"0123456789"]).key
    assert whole(store, key, offset=offset, length=length) == expected


@pytest.mark.parametrize(("offset", "length"), [(11, None), (-1, None), (0, -1)])
def test_a_part_beyond_the_end_is_a_typed_error(store, offset, length):
    key = store.put([b"0123456789"]).key
    with pytest.raises(ObjectError) as raised:
        whole(store, key, offset=offset, length=length)
    assert code(raised) is Code.OBJECT_RANGE


def test_a_broken_download_resumes_where_it_was(store):
    data = secrets.token_bytes(3 * MIB + 17)
    key = store.put([data]).key
    got = next(store.read(key))
    got += whole(store, key, offset=len(got))
    assert got == data


def test_what_is_not_there_is_missing(store):
    for call in (store.size, lambda key: whole(store, key)):
        with pytest.raises(ObjectError) as raised:
            call(object_key(digest_of(b"never put")))
        assert code(raised) is Code.OBJECT_MISSING
    with pytest.raises(ObjectError) as raised:
        store.get("manifests/none")
    assert code(raised) is Code.OBJECT_MISSING


def test_a_manifest_is_written_once(store):
    tag = store.create("manifests/v1.json", b"{}")
    assert (store.get("manifests/v1.json").data, store.get("manifests/v1.json").tag) == (b"{}", tag)
    for data in (b"{}", b"other"):
        with pytest.raises(ObjectError) as raised:
            store.create("manifests/v1.json", data)
        assert code(raised) is Code.OBJECT_CONFLICT
    assert store.get("manifests/v1.json").data == b"{}"


def test_a_manifest_waits_for_everything_it_names(store):
    there, absent = store.put([b"weights"]).key, object_key(digest_of(b"calibration"))
    with pytest.raises(ObjectError) as raised:
        store.create("manifests/v1.json", b"{}", needs=[there, absent])
    assert code(raised) is Code.OBJECT_MISSING
    assert store.list("manifests/").keys == ()
    store.put([b"calibration"])
    store.create("manifests/v1.json", b"{}", needs=[there, absent])


def test_of_a_hundred_who_create_one_manifest_exactly_one_wins(store):
    found = at_once([lambda n=n: store.create("manifests/v1.json", b"%d" % n) for n in range(WRITERS)])
    (winner,) = [n for n, result in enumerate(found) if result is not Code.OBJECT_CONFLICT]
    assert store.get("manifests/v1.json").data == b"%d" % winner
    assert store.get("manifests/v1.json").tag == found[winner]


def test_of_a_hundred_who_move_one_pointer_exactly_one_wins(store):
    tag = store.create("channels/stable", b"v1")
    found = at_once([lambda n=n: store.replace("channels/stable", b"v%d" % (n + 2), tag=tag) for n in range(WRITERS)])
    assert len(set(found)) == 2, sorted(map(str, found))
    (winner,) = [n for n, result in enumerate(found) if result is not Code.OBJECT_CONFLICT]
    assert store.get("channels/stable").data == b"v%d" % (winner + 2)


def test_a_pointer_is_swapped_only_against_its_tag(store):
    first = store.create("channels/stable", b"v1")
    second = store.replace("channels/stable", b"v2", tag=first)
    with pytest.raises(ObjectError) as raised:
        store.replace("channels/stable", b"v3", tag=first)
    assert code(raised) is Code.OBJECT_CONFLICT
    store.replace("channels/stable", b"v3", tag=second)
    assert store.get("channels/stable").data == b"v3"
    store.delete("channels/stable")
    with pytest.raises(ObjectError) as raised:
        store.replace("channels/stable", b"v4", tag=second)
    assert code(raised) is Code.OBJECT_CONFLICT


def test_a_listing_comes_in_pages_in_order_by_prefix(store):
    keys = [f"manifests/a/{n:03d}.json" for n in range(25)] + ["manifests/a-b", "manifests/a.c", "other/x"]
    for key in reversed(keys):
        store.create(key, b"{}")
    found, after, pages = [], "", 0
    while after is not None:
        page = store.list("manifests/", after=after, limit=10)
        found, after, pages = [*found, *page.keys], page.after, pages + 1
    assert found == sorted(key for key in keys if key.startswith("manifests/"))
    assert pages == 3
    assert store.list("manifests/a/00").keys == tuple(f"manifests/a/00{n}.json" for n in range(10))
    assert store.list("nothing/").keys == ()
    assert store.list(limit=28).after is None


def test_deleting_is_final_and_harmless_when_repeated(store):
    key = store.put([b"x"]).key
    store.delete(key)
    store.delete(key)
    with pytest.raises(ObjectError) as raised:
        store.size(key)
    assert code(raised) is Code.OBJECT_MISSING


def test_an_object_with_an_end_is_refused_from_then_on_and_swept(store, clock):
    short = store.put([b"capture"], lifetime=timedelta(seconds=60)).key
    long = store.put([b"capture"], digest=digest_of(b"capture"), lifetime=timedelta(hours=1)).key
    lasting = store.put([b"capture"]).key
    clock.now += timedelta(seconds=59)
    assert whole(store, short) == b"capture"
    assert store.sweep() == 0
    clock.now += timedelta(seconds=1)
    for call in (store.size, lambda key: whole(store, key)):
        with pytest.raises(ObjectError) as raised:
            call(short)
        assert code(raised) is Code.OBJECT_MISSING
    assert store.sweep() == 1
    assert store.list().keys == (long, lasting)
    assert whole(store, long) == whole(store, lasting) == b"capture"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_name_that_is_a_path_elsewhere_is_refused_everywhere(store, key):
    calls = [store.size, store.read, store.get, store.delete, lambda k: store.create(k, b"x")]
    calls += [lambda k: store.replace(k, b"x", tag="t"), lambda k: store.create("m", b"x", needs=[k])]
    if key not in {"", "a/"}:
        calls.append(store.list)
    for call in calls:
        with pytest.raises(ObjectError) as raised:
            call(key)
        assert code(raised) is Code.OBJECT_KEY


def test_named_keys_and_objects_are_not_taken_for_each_other(store):
    key = store.put([b"x"]).key
    for call in (store.get, lambda k: store.create(k, b"y"), lambda k: store.replace(k, b"y", tag="t")):
        with pytest.raises(ObjectError) as raised:
            call(key)
        assert code(raised) is Code.OBJECT_KEY
    store.create("manifests/x", b"x")
    with pytest.raises(ObjectError) as raised:
        store.read("manifests/x")
    assert code(raised) is Code.OBJECT_KEY


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_a_digest_that_is_none_is_refused(store, digest):
    with pytest.raises(ObjectError) as raised:
        store.put([b"x"], digest=digest)
    assert code(raised) is Code.OBJECT_KEY


def test_bytes_changed_behind_the_stores_back_are_noticed(store, tmp_path):
    data = b"weights" * 1000
    key = store.put([data]).key
    flipped = bytearray(data)
    flipped[3000] ^= 1
    if isinstance(store, FolderObjects):
        (tmp_path / "objects" / key).write_bytes(flipped)
    else:
        store._client.put_object(store._bucket, key, io.BytesIO(flipped), len(flipped))
    with pytest.raises(ObjectError) as raised:
        whole(store, key)
    assert code(raised) is Code.OBJECT_CORRUPT
    store.put([data])
    assert whole(store, key) == data


@pytest.mark.parametrize("sizes", [(99, 100), (101, 100), (100, 99), (0, 100), (100, 0)], ids=str)
@pytest.mark.parametrize("is_known", [True, False], ids=["digest", "no-digest"])
def test_bytes_of_another_size_than_was_said_are_not_kept(store, sizes, is_known):
    sent, said = b"x" * sizes[0], sizes[1]
    with pytest.raises(ObjectError) as raised:
        store.put([sent[:50], sent[50:]], digest=digest_of(sent) if is_known else None, size=said)
    assert code(raised) is Code.OBJECT_CORRUPT
    assert not store.list().keys


def test_bytes_of_another_digest_are_not_kept_in_one_request_either(store):
    with pytest.raises(ObjectError) as raised:
        store.put([b"a" * MIB, b"b" * MIB], digest=digest_of(b"c"), size=2 * MIB)
    assert code(raised) is Code.OBJECT_CORRUPT
    assert not store.list().keys
