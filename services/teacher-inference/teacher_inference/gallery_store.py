"""Where galleries lie: for each site a list of its persons, and for each person the teacher's features, all sealed.

    galleries/key.sealed                     written once by the first service: tells a wrong key before it does harm
    galleries/SITE/gallery.sealed            swapped: {"persons": {PERSON: REVISION}, "unlinked": [PERSON-REVISION, ..]}
    galleries/SITE/PERSON-REVISION.sealed    written once: safetensors with `features` (N, D) and, as JSON in the
                                             header's field `enrolled`, name of the person and id of the space

SITE and PERSON are keyed digests (`teacher_inference.vault`). A REVISION is UNIX seconds (10 digits) and 8 at random.

The list is the truth: somebody is enrolled while it names a revision of theirs. It is swapped against its tag, so of
several services that change one site at a time none loses what another did. What a change takes out of the list is
named under `unlinked` by the same write and deleted after it; whoever changes or loads the list next deletes it again,
so that a service killed in between leaves nothing of a person. Features that were written but never listed, because
their service was killed, are swept when the site is next loaded, an hour later at the earliest.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog
from safetensors import SafetensorError
from safetensors.numpy import load, save

from teacher_inference.conflicts import conflict_ignored
from teacher_inference.vault import Vault
from tutelage.biometrics.features import Features
from tutelage.canonical import canonical_json
from tutelage.errors import Code, ObjectError, ServiceError, StorageError, TutelageError
from tutelage.objects import ObjectStore

__all__ = ["Enrolled", "GalleryStore", "Listing"]

ROOT = "galleries"
KEY_CHECK = f"{ROOT}/key.sealed"

ABANDONED = timedelta(hours=1)
"""Features that nobody listed are an interrupted enrolment's after so long; no enrolment takes longer."""

CHANGE_WITHIN_S = 20.0
"""How long one change is tried against others of the same site."""

READERS = 8
"""Persons read at a time: a site of a thousand is loaded in a second from a store that answers in 5 ms."""

_LENGTH_BYTES = 8  # safetensors: a little-endian length, then as many bytes of JSON
_SECONDS_DIGITS = 10


@dataclass(frozen=True)
class Enrolled:
    """One person as a gallery keeps them."""

    person: str
    """The name."""
    features: Features
    """(N, D), in the space of the teacher that answered when they were enrolled."""


@dataclass(frozen=True)
class Listing:
    """Who is enrolled at a site, by keyed digests."""

    persons: Mapping[str, str]
    """PERSON -> REVISION."""
    unlinked: tuple[str, ...]
    """PERSON-REVISION of what the last change took out; it may still have to be deleted."""
    tag: str
    """Stands for this content; empty for a site without a list."""


NOBODY = Listing({}, (), "")


class GalleryStore:
    """Reads and changes galleries in an object store; blocking, for many threads."""

    def __init__(self, objects: ObjectStore, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        """Keep galleries in `objects`; `clock` gives UNIX seconds."""
        self._objects, self._vault, self._clock = objects, vault, clock
        self._checked = threading.Event()

    def site(self, name: str) -> str:
        """SITE of the site called `name`."""
        return self._vault.name("site", name)

    def person(self, site: str, name: str) -> str:
        """PERSON of somebody at a SITE."""
        return self._vault.name("person", site, name)

    def check_key(self) -> None:
        """Return if the galleries here were sealed with this vault's key; leave the proof where there is none yet.

        Raises:
            StorageError: `key-wrong`.
        """
        if self._checked.is_set():
            return
        try:
            found = self._objects.get(KEY_CHECK).data
        except ObjectError as error:
            if error.code is not Code.OBJECT_MISSING:
                raise
            found = self._first_proof()
        self._vault.open(found, KEY_CHECK)
        self._checked.set()

    def _first_proof(self) -> bytes:
        proof = self._vault.seal(b"", KEY_CHECK)
        with conflict_ignored():
            self._objects.create(KEY_CHECK, proof)
            return proof
        return self._objects.get(KEY_CHECK).data

    def listing(self, site: str) -> Listing:
        """Who is enrolled at a SITE.

        Raises:
            StorageError: `key-wrong`; `store-corrupt`, the list is damaged.
        """
        self.check_key()
        try:
            found = self._objects.get(_list_key(site))
        except ObjectError as error:
            if error.code is Code.OBJECT_MISSING:
                return NOBODY
            raise
        about = json.loads(self._vault.open(found.data, _list_key(site)))
        return Listing(about["persons"], tuple(about["unlinked"]), found.tag)

    def read(self, site: str, revisions: Mapping[str, str]) -> dict[str, Enrolled | None]:
        """The features of persons by their PERSON; None where they are gone or damaged.

        Raises:
            StorageError: `key-wrong`.
        """
        if not revisions:
            return {}
        names = [f"{person}-{revision}" for person, revision in revisions.items()]
        with ThreadPoolExecutor(min(READERS, len(names)), "gallery") as readers:
            found = list(readers.map(lambda name: self._read_one(site, name), names))
        return dict(zip(revisions, found, strict=True))

    def _read_one(self, site: str, name: str) -> Enrolled | None:
        key = _features_key(site, name)
        try:
            return _decoded(self._vault.open(self._objects.get(key).data, key))
        except (ObjectError, StorageError) as error:
            if error.code not in {Code.OBJECT_MISSING, Code.STORE_CORRUPT}:
                raise
            structlog.get_logger().error("features of a person are damaged or gone", key=key, code=error.code.value)
            return None

    def write(self, site: str, enrolled: Enrolled) -> tuple[str, str]:
        """Write features that no list names yet; their PERSON and REVISION."""
        person = self.person(site, enrolled.person)
        revision = f"{int(self._clock()):0{_SECONDS_DIGITS}d}{secrets.token_hex(4)}"
        key = _features_key(site, f"{person}-{revision}")
        self._objects.create(key, self._vault.seal(_encoded(enrolled), key))
        return person, revision

    def discard(self, site: str, person: str, revision: str) -> None:
        """Delete features that no list names; if that fails, the sweep will."""
        with suppress(TutelageError):
            self._objects.delete(_features_key(site, f"{person}-{revision}"))

    def change(self, site: str, changed: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """Swap the list of a SITE for what `changed` makes of its persons; returns once what it unlinked is deleted.

        Raises:
            ServiceError: `service-unavailable`, others changed the same site all the time.
            TutelageError: what `changed` raises; nothing was changed then.
        """
        until = time.monotonic() + CHANGE_WITHIN_S
        while time.monotonic() < until:
            before = self.listing(site)
            self._delete(site, before.unlinked)
            after = changed(before.persons)
            unlinked = [f"{person}-{r}" for person, r in before.persons.items() if after.get(person) != r]
            with conflict_ignored():
                self._swap(site, before.tag, {"persons": dict(after), "unlinked": unlinked})
                self._delete(site, unlinked)
                return
            time.sleep(random.uniform(0.0, 0.1))
        raise ServiceError(Code.SERVICE_UNAVAILABLE, "too many changes at one site at a time: try again")

    def _swap(self, site: str, tag: str, about: Mapping[str, object]) -> None:
        key = _list_key(site)
        sealed = self._vault.seal(canonical_json(about), key)
        if tag:
            self._objects.replace(key, sealed, tag=tag)
        else:
            self._objects.create(key, sealed)

    def clean(self, site: str, listing: Listing) -> None:
        """Delete what interrupted services left at a SITE whose list is `listing`."""
        self._delete(site, listing.unlinked)
        listed = {f"{person}-{revision}" for person, revision in listing.persons.items()}
        limit = self._clock() - ABANDONED.total_seconds()
        prefix, after = f"{ROOT}/{site}/", ""
        while True:
            page = self._objects.list(prefix, after=after)
            names = [key.removeprefix(prefix).removesuffix(".sealed") for key in page.keys]
            self._delete(site, (name for name in names if name not in listed and _written_before(name, limit)))
            if page.after is None:
                return
            after = page.after

    def _delete(self, site: str, names: Iterable[str]) -> None:
        for name in names:
            self._objects.delete(_features_key(site, name))


def _list_key(site: str) -> str:
    return f"{ROOT}/{site}/gallery.sealed"


def _features_key(site: str, name: str) -> str:
    return f"{ROOT}/{site}/{name}.sealed"


def _written_before(name: str, limit: float) -> bool:
    """Whether `name`, PERSON-REVISION or something else, is features written before `limit` in UNIX seconds."""
    _, _, revision = name.partition("-")
    seconds = revision[:_SECONDS_DIGITS]
    return seconds.isdecimal() and int(seconds) < limit


def _encoded(enrolled: Enrolled) -> bytes:
    about = json.dumps({"person": enrolled.person, "space": enrolled.features.space})
    return save({"features": enrolled.features.vectors}, metadata={"enrolled": about})


def _decoded(data: bytes) -> Enrolled:
    try:
        vectors = load(data)["features"]
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        about = json.loads(json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"]["enrolled"])
        return Enrolled(about["person"], Features(vectors, about["space"]))
    except (SafetensorError, LookupError, TypeError, ValueError, TutelageError) as error:
        raise StorageError(Code.STORE_CORRUPT, "sealed features are in an unknown layout: enrol again") from error
