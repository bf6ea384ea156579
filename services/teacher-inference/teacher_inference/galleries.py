"""Galleries: whom the teacher knows at each site, in memory as far as calls need it, and never out of date for long.

Several services share one store. Each asks for a site's list (`teacher_inference.gallery_store`) at most once a call
and not again while its last look is younger than `fresh_for`; of what changed it reads only that. So an enrolment or a
removal at one service is seen by all others after `fresh_for` at the latest, and by itself at once.

Persons who were enrolled with another teacher stay enrolled, but are compared with nobody: features of two spaces say
nothing about each other. `SiteGallery.others` counts them, and enrolling them again replaces what is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TypeVar

from teacher_inference.gallery_store import NOBODY, Enrolled, GalleryStore, Listing
from teacher_inference.threads import in_thread
from tutelage.biometrics.features import Features
from tutelage.errors import Code, PersonError, StorageError
from tutelage.labelling import Gallery

__all__ = ["Galleries", "SiteGallery"]

IDLE = timedelta(minutes=10)
"""A site that nobody asked about for so long leaves memory."""

MAX_PERSONS = 10_000
"""Persons of one site: with 3 references of 256 numbers each they take 30 MB of memory and one comparison 3 ms."""

_READS = 3  # of a list whose persons were replaced while they were read
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class SiteGallery:
    """Whom the teacher knows at one site, as one look found it."""

    gallery: Gallery
    """Everybody whose features lie in the present teacher's space."""
    names: Mapping[str, str]
    """Names of all who are enrolled, by PERSON."""
    others: int
    """Persons who cannot be compared: enrolled with another teacher, or damaged in the store."""


@dataclass
class _Held:
    """What is in memory of one site."""

    listing: Listing = NOBODY
    revisions: dict[str, str] = field(default_factory=dict)
    enrolled: dict[str, Enrolled | None] = field(default_factory=dict)
    site_gallery: SiteGallery = SiteGallery(Gallery.of({}), {}, 0)
    looked_at: float = float("-inf")
    used_at: float = 0.0


@dataclass(eq=False)
class _Look:
    """One look at the store; it answers all who asked before it began, and while it is fresh."""

    begun: float = float("inf")
    found: asyncio.Task[SiteGallery] = field(init=False)


class Galleries:
    """Galleries of all sites for one teacher; for one event loop."""

    def __init__(
        self,
        store: GalleryStore,
        space: str,
        threads: Executor,
        *,
        fresh_for: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Galleries in `store` for the teacher of this `space`; the store is asked in `threads`."""
        self._store, self._space, self._threads = store, space, threads
        self._fresh_for, self._clock = fresh_for.total_seconds(), clock
        self._held: dict[str, _Held] = {}
        self._looks: dict[str, _Look] = {}
        self._changed_at: dict[str, float] = {}

    @property
    def persons(self) -> int:
        """Persons whose features are in memory."""
        return sum(len(held.revisions) for held in self._held.values())

    def person_key(self, site: str, person: str) -> str:
        """PERSON, what stands for a name where it must not be written."""
        return self._store.person(self._store.site(site), person)

    async def at(self, site: str) -> SiteGallery:
        """Whom the teacher knows at a `site`; nobody at one that was never heard of.

        Raises:
            ObjectError: the store does not answer.
            StorageError: `key-wrong`; `store-corrupt`, the site's list is damaged.
        """
        now = self._clock()
        held = self._held.get(site)
        if held is not None:
            held.used_at = now
            if now - held.looked_at < self._fresh_for:
                return held.site_gallery
        look = self._looks.get(site)
        if look is None or now >= look.begun + self._fresh_for:
            look = self._looks[site] = _Look()
            look.found = asyncio.create_task(self._look(site, look))
            look.found.add_done_callback(partial(self._looked, site, look))
        return await asyncio.shield(look.found)

    def _looked(self, site: str, look: _Look, found: asyncio.Task[SiteGallery]) -> None:
        """Let the next call look again; whoever waits for this one is told what it raised."""
        if not found.cancelled():
            found.exception()
        if self._looks.get(site) is look:
            del self._looks[site]

    async def _look(self, site: str, look: _Look) -> SiteGallery:
        begun = look.begun = self._clock()
        held = self._held.get(site) or _Held(used_at=begun)
        seen = await in_thread(self._threads, self._read, self._store.site(site), held)
        now = self._held.setdefault(site, seen)
        if begun >= now.looked_at:  # else another look began later and is the better one
            # One that began before a change of our own may have missed it: it answers, and is not looked at again.
            seen.looked_at = begun if begun > self._changed_at.get(site, float("-inf")) else float("-inf")
            seen.used_at = max(now.used_at, begun)
            self._held[site] = seen
        return seen.site_gallery

    def _read(self, site: str, held: _Held) -> _Held:
        """What is in memory brought up to date with the store."""
        first = not held.listing.tag
        for _ in range(_READS):
            listing = self._store.listing(site)
            if listing.tag == held.listing.tag:
                return _Held(held.listing, held.revisions, held.enrolled, held.site_gallery)
            if first or listing.unlinked:
                self._store.clean(site, listing)
            new = {person: r for person, r in listing.persons.items() if held.revisions.get(person) != r}
            read = self._store.read(site, new)
            whole = all(person is not None for person in read.values())
            if whole or self._store.listing(site).tag == listing.tag:
                break
        kept = {person: held.enrolled[person] for person in listing.persons if person not in new}
        enrolled = {**kept, **read}
        return _Held(listing, dict(listing.persons), enrolled, self._gallery(enrolled))

    def _gallery(self, enrolled: Mapping[str, Enrolled | None]) -> SiteGallery:
        known = {key: person for key, person in enrolled.items() if person is not None}
        comparable = {p.person: p.features for p in known.values() if p.features.space == self._space}
        names = {key: person.person for key, person in known.items()}
        return SiteGallery(Gallery.of(comparable), names, len(enrolled) - len(comparable))

    async def enrol(self, site: str, person: str, features: Features) -> None:
        """Keep `features` as those of `person`; the former ones of a known person are deleted.

        Raises:
            StorageError: `storage-full`, also where the site has `MAX_PERSONS`; as `at`.
            ServiceError: `service-unavailable`, others changed the same site all the time.
        """
        await self._changed(site, self._enrol, Enrolled(person, features))

    def _enrol(self, site: str, enrolled: Enrolled) -> None:
        self._store.check_key()
        person, revision = self._store.write(site, enrolled)

        def added(persons: Mapping[str, str]) -> Mapping[str, str]:
            if person not in persons and len(persons) >= MAX_PERSONS:
                raise StorageError(Code.STORAGE_FULL, f"a site has at most {MAX_PERSONS} persons: remove some")
            return {**persons, person: revision}

        try:
            self._store.change(site, added)
        except StorageError:
            self._store.discard(site, person, revision)  # it was not listed: a list is written whole or not at all
            raise

    async def remove(self, site: str, person: str) -> int:
        """Forget everything about `person`; how many references that were.

        Raises:
            PersonError: nobody of that name is enrolled there.
            ServiceError, ObjectError, StorageError: as `enrol`.
        """
        return await self._changed(site, self._remove, person)

    def _remove(self, site: str, name: str) -> int:
        person = self._store.person(site, name)
        listed = self._store.listing(site).persons.get(person)
        kept = self._store.read(site, {person: listed})[person] if listed else None
        taken: set[str] = set()

        def without(persons: Mapping[str, str]) -> Mapping[str, str]:
            # Ours already where the answer to an earlier try was lost.
            if person not in persons and person not in taken:
                raise PersonError(name)
            taken.add(person)
            return {other: revision for other, revision in persons.items() if other != person}

        self._store.change(site, without)
        return len(kept.features) if kept is not None else 1

    async def _changed(self, site: str, change: Callable[..., _Answer], *words: object) -> _Answer:
        """What `change` returns; the next call about the `site` looks at the store again, whatever came of it."""
        try:
            return await in_thread(self._threads, change, self._store.site(site), *words)
        finally:
            self._changed_at[site] = self._clock()
            self._looks.pop(site, None)
            if site in self._held:
                self._held[site].looked_at = float("-inf")

    def forget_idle(self) -> None:
        """Let go of sites that nobody asked about lately."""
        limit = self._clock() - IDLE.total_seconds()
        for site in [site for site, held in self._held.items() if held.used_at < limit]:
            del self._held[site]
            self._changed_at.pop(site, None)
