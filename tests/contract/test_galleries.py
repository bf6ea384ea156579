"""Galleries keep their promises on a folder and on a real MinIO, whoever else changes them."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest

pytest.importorskip("minio")

from object_makers import s3

from teacher_inference import galleries as galleries_module
from teacher_inference.galleries import Galleries
from teacher_inference.gallery_store import GalleryStore
from teacher_inference.vault import Vault
from tutelage.biometrics.features import Features
from tutelage.errors import Code, ObjectError, PersonError, StorageError
from tutelage.folder_objects import FolderObjects

KEY = bytes(range(32))
NAME = "Anna-of-Gate-Seven"


def features(direction: int, space: str = "s1", count: int = 2) -> Features:
    vectors = np.zeros((count, 8), dtype=np.float32)
    vectors[:, direction] = 1.0
    return Features(vectors, space)


class Store:
    """One object store that any number of services open."""

    def __init__(self, objects) -> None:
        self.objects = objects
        self._threads = ThreadPoolExecutor(8)

    def galleries(self, space: str = "s1", fresh_s: float = 0.0, key: bytes = KEY, objects=None, **more) -> Galleries:
        store = GalleryStore(objects or self.objects, Vault(key), **more)
        return Galleries(store, space, self._threads, fresh_for=timedelta(seconds=fresh_s))

    def listed(self) -> list[str]:
        return [key for key in self.objects.list("galleries/").keys if key != "galleries/key.sealed"]

    def bytes(self) -> bytes:
        return b"".join(self.objects.get(key).data for key in self.listed())


@pytest.fixture(params=["folder", "minio"])
def store(request, tmp_path) -> Store:
    if request.param == "folder":
        return Store(FolderObjects(tmp_path))
    objects = s3(request.getfixturevalue("minio_server"), bucket=f"b-{secrets.token_hex(6)}")
    objects.ensure_bucket()
    return Store(objects)


async def persons(galleries: Galleries, site: str = "a") -> dict[str, int]:
    """References of each person who can be compared."""
    gallery = (await galleries.at(site)).gallery
    if gallery.features is None:
        return {}
    counts = np.diff([*gallery.starts, len(gallery.features)])
    return dict(zip(gallery.persons, counts.tolist(), strict=True))


async def test_who_is_enrolled_is_known_to_every_service_and_after_a_restart(store):
    one, two = store.galleries(), store.galleries()
    assert await persons(one) == await persons(two) == {}
    await one.enrol("a", "anna", features(0))
    await two.enrol("a", "bert", features(1, count=3))
    for galleries in (one, two, store.galleries()):
        assert await persons(galleries) == {"anna": 2, "bert": 3}
        assert await persons(galleries, "another") == {}


async def test_enrolling_again_replaces_and_removing_forgets(store):
    one, two = store.galleries(), store.galleries()
    await one.enrol("a", "anna", features(0))
    await persons(two)
    await one.enrol("a", "anna", features(3, count=1))
    found = (await two.at("a")).gallery.features
    assert found.vectors.argmax(axis=1).tolist() == [3]
    assert await two.remove("a", "anna") == 1
    assert await persons(one) == {}
    for galleries in (one, two):
        with pytest.raises(PersonError):
            await galleries.remove("a", "anna")


async def test_nothing_is_left_of_who_was_removed_and_nothing_tells_who_is_there(store):
    one = store.galleries()
    await one.enrol("a", NAME, features(0))
    assert len(store.listed()) == 2
    for text in (NAME, "features", "s1"):
        assert text.encode() not in store.bytes()
        assert text.lower() not in " ".join(store.listed()).lower()
    await one.enrol("a", NAME, features(1))
    assert len(store.listed()) == 2
    await one.remove("a", NAME)
    (left,) = store.listed()
    assert left.endswith("/gallery.sealed")


async def test_the_same_name_at_two_sites_is_two_persons(store):
    one = store.galleries()
    await one.enrol("a", "anna", features(0))
    await one.enrol("b", "anna", features(1))
    names = [key.split("/")[-1].split("-")[0] for key in store.listed() if not key.endswith("gallery.sealed")]
    assert len(set(names)) == 2
    await one.remove("a", "anna")
    assert await persons(one, "b") == {"anna": 2}


async def test_many_changes_at_a_time_lose_nothing(store):
    services = [store.galleries() for _ in range(4)]
    await asyncio.gather(*(services[n % 4].enrol("a", f"p{n}", features(n % 8)) for n in range(12)))
    gone = [services[(n + 1) % 4].remove("a", f"p{n}") for n in range(0, 12, 2)]
    again = [services[n % 4].enrol("a", f"p{n}", features(0, count=1)) for n in range(1, 12, 4)]
    await asyncio.gather(*gone, *again)
    expected = {f"p{n}": 1 if n % 4 == 1 else 2 for n in range(1, 12, 2)}
    assert await persons(services[0]) == await persons(store.galleries()) == expected
    assert len(store.listed()) == len(expected) + 1


async def test_persons_of_another_teacher_stay_but_are_compared_with_nobody(store):
    old, new = store.galleries("s1"), store.galleries("s2")
    await old.enrol("a", "anna", features(0, "s1"))
    await old.enrol("a", "bert", features(1, "s1"))
    await new.enrol("a", "bert", features(1, "s2"))
    site = await new.at("a")
    assert (site.gallery.persons, site.others) == (("bert",), 1)
    assert sorted(site.names.values()) == ["anna", "bert"]
    assert (await old.at("a")).others == 1
    assert await new.remove("a", "anna") == 2
    assert (await new.at("a")).others == 0


async def test_another_key_is_refused_before_it_does_harm(store):
    await store.galleries().enrol("a", "anna", features(0))
    wrong = store.galleries(key=bytes(32))
    for attempt in (wrong.at("a"), wrong.enrol("a", "anna", features(0)), wrong.remove("a", "anna")):
        with pytest.raises(StorageError) as caught:
            await attempt
        assert caught.value.code is Code.KEY_WRONG
    assert await persons(store.galleries()) == {"anna": 2}


async def test_a_damaged_person_is_not_compared_and_can_be_enrolled_again(store):
    one = store.galleries()
    await one.enrol("a", "anna", features(0))
    await one.enrol("a", "bert", features(1))
    key = next(key for key in store.listed() if not key.endswith("gallery.sealed"))
    named = store.objects.get(key)
    store.objects.replace(key, named.data[:-1] + bytes([named.data[-1] ^ 1]), tag=named.tag)
    new = store.galleries()
    site = await new.at("a")
    assert (len(site.gallery.persons), site.others) == (1, 1)
    (lost,) = {"anna", "bert"} - set(site.gallery.persons)
    await new.enrol("a", lost, features(2))
    assert (await new.at("a")).others == 0


class Dying:
    """An object store whose service is killed at one write or deletion: that and all later ones are not made."""

    def __init__(self, objects, writes: int) -> None:
        self._objects, self._left = objects, writes

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def __getattr__(self, name: str):
        method = getattr(self._objects, name)
        if name not in {"create", "replace", "delete", "put"}:
            return method

        def dying(*words, **named):
            self._spend()
            return method(*words, **named)

        return dying


@contextmanager
def killed():
    """The block ends where the service died, or by itself."""
    try:
        yield
    except KeyboardInterrupt:
        return


@pytest.mark.parametrize("writes", range(5))
def test_a_service_killed_at_any_write_leaves_a_person_whole_or_absent(store, writes):
    """Enrolled before, replaced now, and removed: killed after every number of writes, then finished by another."""
    vault = Vault(KEY)
    alive = GalleryStore(store.objects, vault)
    by = Galleries(alive, "s1", ThreadPoolExecutor(1), fresh_for=timedelta(0))
    asyncio.run(by.enrol("a", "anna", features(0)))
    dying = GalleryStore(Dying(store.objects, writes), vault)
    doomed = Galleries(dying, "s1", ThreadPoolExecutor(1), fresh_for=timedelta(0))
    with killed():
        doomed._enrol(dying.site("a"), galleries_module.Enrolled("anna", features(5, count=1)))
    found = asyncio.run(by.at("a")).gallery.features
    assert found.vectors.argmax(axis=1).tolist() in ([0, 0], [5])
    dying = GalleryStore(Dying(store.objects, writes), vault)
    doomed = Galleries(dying, "s1", ThreadPoolExecutor(1), fresh_for=timedelta(0))
    with killed():
        doomed._remove(dying.site("a"), "anna")
    later = GalleryStore(store.objects, vault, clock=lambda: 4e9)
    other = Galleries(later, "s1", ThreadPoolExecutor(1), fresh_for=timedelta(0))
    if asyncio.run(persons(other)):
        asyncio.run(other.remove("a", "anna"))
    assert asyncio.run(persons(Galleries(later, "s1", ThreadPoolExecutor(1), fresh_for=timedelta(0)))) == {}
    assert [key.rpartition("/")[2] for key in store.listed()] == ["gallery.sealed"]


class Counting:
    """An object store that counts what it is asked."""

    def __init__(self, objects) -> None:
        self._objects, self.calls = objects, []

    def __getattr__(self, name: str):
        method = getattr(self._objects, name)

        def counted(*words, **named):
            self.calls.append(name)
            return method(*words, **named)

        return counted


async def test_a_look_costs_one_get_and_none_while_the_last_one_is_fresh(store):
    counting = Counting(store.objects)
    await store.galleries().enrol("a", "anna", features(0))
    always, seldom = store.galleries(objects=counting), store.galleries(fresh_s=60.0, objects=counting)
    for galleries in (always, seldom):
        await galleries.at("a")
    counting.calls.clear()
    await always.at("a")
    assert counting.calls == ["get"]
    await asyncio.gather(*(seldom.at("a") for _ in range(20)))
    assert counting.calls == ["get"]
    await seldom.enrol("a", "bert", features(1))
    assert await persons(seldom) == {"anna": 2, "bert": 2}  # its own change at once


async def test_all_who_ask_before_a_look_begins_share_it_and_nobody_who_asks_later(store):
    counting = Counting(store.objects)
    one, other = store.galleries(objects=counting), store.galleries()
    await one.enrol("a", "anna", features(0))
    await one.at("a")
    counting.calls.clear()
    assert await asyncio.gather(*(persons(one) for _ in range(20))) == [{"anna": 2}] * 20
    assert counting.calls == ["get"]
    counting.calls.clear()
    early = [asyncio.create_task(persons(one)) for _ in range(5)]
    while "get" not in counting.calls:
        await asyncio.sleep(0)
    await other.enrol("a", "bert", features(1))
    assert await persons(one) == {"anna": 2, "bert": 2}
    assert all("anna" in each for each in await asyncio.gather(*early))


async def test_what_another_service_changed_is_seen_once_the_last_look_is_old(store):
    one, two = store.galleries(fresh_s=0.3), store.galleries()
    await two.enrol("a", "anna", features(0))
    assert await persons(one) == {"anna": 2}
    await two.remove("a", "anna")
    await asyncio.sleep(0.35)
    assert await persons(one) == {}


async def test_a_site_is_full_at_its_limit(store, monkeypatch):
    monkeypatch.setattr(galleries_module, "MAX_PERSONS", 1)
    one = store.galleries()
    await one.enrol("a", "anna", features(0))
    with pytest.raises(StorageError) as caught:
        await one.enrol("a", "bert", features(1))
    assert caught.value.code is Code.STORAGE_FULL
    await one.enrol("a", "anna", features(2))
    assert len(store.listed()) == 2


async def test_a_store_that_is_away_is_told(store):
    class Away:
        def __getattr__(self, name: str):
            def fail(*_words, **_named):
                raise ObjectError(Code.OBJECTS_UNAVAILABLE, "no answer: try again")

            return fail

    one = store.galleries(objects=Away())
    for attempt in (one.at("a"), one.enrol("a", "anna", features(0)), one.remove("a", "anna")):
        with pytest.raises(ObjectError):
            await attempt
