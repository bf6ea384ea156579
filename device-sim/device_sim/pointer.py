"""What a device knows of its student packages: which one recognises, which to fall back on, which numbers are taken.

It is one small JSON file beside the packages, `CURRENT`, replaced as a whole at every change:

    current    {"package": {"generation": "v3+7", "digest": "sha256:..."}, "released": {... of v3 ...}}
    previous   the same of the student that recognised before it, or null
    taken      {"3": 7}: the highest local number ever promoted, by version; a number never names two students
    reverted   [{"digest": ..., "reason": ...}] of the students that were taken back here, the latest last
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from device_sim.typed_json import plain, typed
from tutelage.canonical import canonical_json
from tutelage.errors import UsageError

MAX_REVERTED = 16
"""Reverted students remembered; a release that was bad here is not offered for long after its successor is out."""

_GENERATION = re.compile(r"v(0|[1-9][0-9]{0,8})(?:\+([1-9][0-9]{0,8}))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, order=True)
class Generation:
    """Version 3 as released, `v3`, or the seventh student a device made of it, `v3+7`; ordered by age."""

    version: int
    local: int = 0
    """0 for the version itself."""

    @staticmethod
    def parse(text: str) -> Generation:
        """The generation that `text` names.

        Raises:
            UsageError: it is not of the form `v3` or `v3+7`.
        """
        found = _GENERATION.fullmatch(text)
        if found is None:
            raise UsageError(f"a generation is written like v3 or v3+7, got {text!r}")
        return Generation(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        return f"v{self.version}+{self.local}" if self.local else f"v{self.version}"

    @property
    def is_released(self) -> bool:
        """Whether it came from the cloud rather than from a training on a device."""
        return self.local == 0

    def next_local(self) -> Generation:
        """The generation after this one on the same device."""
        return replace(self, local=self.local + 1)


@dataclass(frozen=True)
class Entry:
    """One package by name; what it names is verified when it is read.

    Raises:
        UsageError: a name is not of its form.
    """

    generation: str
    digest: str
    """`sha256:` and 64 hexadecimal digits."""

    def __post_init__(self) -> None:
        """Refuse what could name a file elsewhere."""
        Generation.parse(self.generation)
        if not _DIGEST.fullmatch(self.digest):
            raise UsageError(f"a package is named by its digest, sha256:<64 hexadecimal digits>: {self.digest!r}")

    @property
    def named(self) -> Generation:
        """Its generation as a value."""
        return Generation.parse(self.generation)


@dataclass(frozen=True)
class Standing:
    """A student and the released version it was made of; both are the same where a version recognises as released.

    Raises:
        UsageError: the two do not belong together.
    """

    package: Entry
    released: Entry

    def __post_init__(self) -> None:
        """Refuse a version that is not its own, or a local generation of another version."""
        package, released = self.package.named, self.released.named
        own = self.package == self.released if package.is_released else package.version == released.version
        if not (own and released.is_released):
            raise UsageError(f"{package} is not made of {released}")


@dataclass(frozen=True)
class Reverted:
    """A student that was taken back on this device."""

    digest: str
    reason: str


@dataclass(frozen=True)
class Pointer:
    """The content of `CURRENT`; a new value for every change."""

    current: Standing
    previous: Standing | None = None
    taken: Mapping[str, int] = field(default_factory=dict)
    reverted: tuple[Reverted, ...] = ()

    def as_bytes(self) -> bytes:
        """The file's content."""
        return canonical_json(plain(self)) + b"\n"

    @staticmethod
    def from_bytes(data: bytes) -> Pointer:
        """The pointer that `as_bytes` wrote.

        Raises:
            UsageError: `data` is nothing of the kind.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UsageError("the pointer is no JSON") from error
        pointer: Pointer = typed(Pointer, value, "the pointer")
        return pointer

    def standings(self) -> Iterator[Standing]:
        """What may recognise, best first: current, previous, then the released version of each."""
        known = [standing for standing in (self.current, self.previous) if standing is not None]
        candidates = (*known, *(Standing(standing.released, standing.released) for standing in known))
        yield from dict.fromkeys(candidates)

    def entries(self) -> frozenset[Entry]:
        """Every package that is still needed."""
        return frozenset(standing.package for standing in self.standings())

    def next_generation(self) -> Generation:
        """Name for the next student made here, never given before."""
        version = self.current.released.named.version
        return Generation(version, self.taken.get(str(version), 0)).next_local()

    def advanced(self, package: Entry, released: Entry) -> Pointer:
        """With `package` recognising and the present student to fall back on."""
        generation = package.named
        taken = dict(self.taken)
        if not generation.is_released:
            taken[str(generation.version)] = generation.local
        return Pointer(Standing(package, released), self.current, taken, self._reverted_but(package))

    def fallen_back(self, target: Standing) -> Pointer:
        """With `target` recognising and, behind it, the version it was made of."""
        behind = Standing(target.released, target.released)
        return replace(self, current=target, previous=None if behind == target else behind)

    def avoiding(self, unwanted: Collection[Entry]) -> Pointer:
        """With none of the `unwanted` packages, unless it is a released version: the newest other one recognises."""
        standings = [s for s in self.standings() if s.package.named.is_released or s.package not in unwanted]
        current, *others = standings
        return replace(self, current=current, previous=others[0] if others else None)

    def without(self, entry: Entry, reason: str) -> Pointer:
        """With `entry` remembered as reverted for `reason`."""
        known = (*self._reverted_but(entry), Reverted(entry.digest, reason))
        return replace(self, reverted=known[-MAX_REVERTED:])

    def _reverted_but(self, entry: Entry) -> tuple[Reverted, ...]:
        return tuple(known for known in self.reverted if known.digest != entry.digest)
