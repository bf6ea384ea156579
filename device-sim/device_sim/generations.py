"""The student packages of a device on disk: always one that may recognise, whatever is cut off or damaged.

Packages are files named by their digest, written once and never changed; `CURRENT` (`device_sim.pointer`) says which
one recognises. A change writes the new package first, replaces `CURRENT` after it, each whole or not at all, and last
removes what nobody needs. So a process killed at any instruction leaves the state before the change or after it.

Nothing on disk is believed. A package is verified whenever it is read, and by the right key: a released version needs
the word of a trusted cloud key, a local generation that of this device's own. Neither can vouch for the other's, so a
stolen device cannot pass its student off as a release. What does not verify is stepped over: the previous good student
recognises instead, else the released version it was made of, and what was skipped is reported with the reason.

    <folder>/CURRENT               which package recognises, see `device_sim.pointer`
    <folder>/<64 digits>.tutelage  a package; the digits are those of its digest

One process at a time may use a folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_sim.pointer import Entry, Generation, Pointer, Standing
from device_sim.shredder import shred_file
from tutelage.errors import Code, PackageError, StorageError, TutelageError, UsageError
from tutelage.files import atomic_write, make_folder, read_bytes, storage_error, sweep
from tutelage.package import StudentPackage, read_package

__all__ = ["Booted", "Generation", "Generations", "Skipped"]

CURRENT = "CURRENT"
SUFFIX = ".tutelage"
MAX_POINTER_BYTES = 1 << 20
"""Many times what `CURRENT` takes."""


@dataclass(frozen=True)
class Skipped:
    """Something on disk that could not be used."""

    name: str
    """A generation, or `CURRENT`."""
    reason: str
    damaged: bool
    """Whether it is damaged or gone for good; else it could not be read or written just now."""


@dataclass(frozen=True)
class Booted:
    """The student that recognises, and what had to be stepped over to find it."""

    package: StudentPackage
    """Verified."""
    generation: Generation
    skipped: tuple[Skipped, ...]
    """Empty when all is well."""


class Generations:
    """The one place that decides which package a device runs; not safe for several threads."""

    def __init__(self, folder: Path, *, cloud_keys: Sequence[Ed25519PublicKey], device_key: Ed25519PublicKey) -> None:
        """Open `folder`, made if absent; `cloud_keys` vouch for releases, `device_key` for this device's students.

        What a power cut left half-written is removed. Without a readable `CURRENT` the newest released version found
        takes its place.

        Raises:
            StorageError: `storage-failed`, the folder cannot be made or read.
        """
        self._folder, self._cloud_keys, self._device_key = folder, tuple(cloud_keys), device_key
        self._skipped: tuple[Skipped, ...] = ()
        make_folder(folder)
        sweep(folder)
        self._pointer = self._load()

    @property
    def pointer(self) -> Pointer | None:
        """Everything that is known of the packages, by name; `None` before anything was installed."""
        return self._pointer

    @property
    def current(self) -> Generation | None:
        """What recognises; `None` before anything was installed."""
        return None if self._pointer is None else self._pointer.current.package.named

    @property
    def released(self) -> Generation | None:
        """The released version that recognises or that what recognises was made of."""
        return None if self._pointer is None else self._pointer.current.released.named

    def released_package(self) -> StudentPackage:
        """The package of `released`, verified.

        Raises:
            PackageError: `package-*`, it is damaged.
            StorageError: `storage-failed`, it cannot be read.
            UsageError: nothing was installed yet.
        """
        return self._read(self.required.current.released)

    @property
    def previous(self) -> Generation | None:
        """What a revert would bring back, if it still verifies; `None` where there is nothing."""
        return None if self._pointer is None or self._pointer.previous is None else self._pointer.previous.package.named

    @property
    def next_generation(self) -> Generation:
        """Name for the next student made here; a number is not used again once a student of it was promoted.

        Raises:
            UsageError: nothing was installed.
        """
        return self.required.next_generation()

    def install(self, data: bytes, *, allow_older: bool = False, allow_reverted: bool = False) -> StudentPackage:
        """Let a released package recognise; the present student stays to fall back on.

        Installing the present released version again only repairs its file.

        Args:
            data: The package.
            allow_older: Whether a version may go back, as when its channel was set back on purpose.
            allow_reverted: Whether a package that was reverted on this device may come again.

        Raises:
            PackageError: `package-*`, it is damaged, not signed by a cloud key, or no released version.
            UsageError: it is older than the present version or was reverted here, and that is not allowed.
            StorageError: `storage-full`, `storage-failed`; the present student goes on.
        """
        package = self.check(data, allow_older=allow_older, allow_reverted=allow_reverted)
        entry, pointer = _entry(package), self._pointer
        if pointer is None:
            self._commit(entry, data, Pointer(Standing(entry, entry)))
        elif entry == pointer.current.released:
            atomic_write(self._path(entry), data)
        else:
            self._commit(entry, data, pointer.advanced(entry, entry))
        return package

    def check(self, data: bytes, *, allow_older: bool = False, allow_reverted: bool = False) -> StudentPackage:
        """The content of a package that may be installed; nothing is changed.

        Raises:
            PackageError, UsageError: As `install`.
        """
        package = read_package(data, trusted=self._cloud_keys)
        entry, pointer = _entry(package), self._pointer
        if not entry.named.is_released:
            raise _signature(f"{entry.named} is a local generation: only the device that made it may vouch for it")
        if pointer is not None and entry != pointer.current.released:
            _check_installable(entry, pointer, allow_older=allow_older, allow_reverted=allow_reverted)
        return package

    def promote(self, data: bytes) -> StudentPackage:
        """Let a local generation recognise that has passed the gate; the present student stays to fall back on.

        Raises:
            PackageError: `package-*`, it is damaged, not signed by this device, or no local generation.
            UsageError: it was made of another student than the present one or its release, or its number is taken.
            StorageError: `storage-full`, `storage-failed`; the present student goes on.
        """
        package = read_package(data, trusted=[self._device_key])
        entry, pointer = _entry(package), self.required
        if entry.named.is_released:
            raise _signature(f"{entry.named} is a released version: only the cloud may vouch for it")
        if entry.named < pointer.next_generation() or entry.named.version != pointer.current.released.named.version:
            raise UsageError(f"{entry.named} cannot follow {self.current}: name it {pointer.next_generation()}")
        if package.info.parent not in (pointer.current.package.digest, pointer.current.released.digest):
            raise UsageError(
                f"{entry.named} was made of another student than {self.current} or {self.released}: train again"
            )
        self._commit(entry, data, pointer.advanced(entry, pointer.current.released))
        return package

    def revert(self, reason: str) -> Booted:
        """Take the present student back for good; the last good one recognises again. Works on a full disk too.

        Raises:
            UsageError: nothing was installed.
            PackageError: `package-corrupt`, there is nothing else that verifies; the present student stays.
            StorageError: `storage-failed`; the present student stays.
        """
        pointer = self.required
        bad = pointer.current.package
        standing, package, skipped = self._first_good(s for s in pointer.standings() if s.package != bad)
        following = pointer.fallen_back(standing).without(bad, reason)
        try:
            self._save(following)
        except StorageError as error:
            if error.code is not Code.STORAGE_FULL:
                raise
            # Without its package the present student cannot come back, whatever happens from here on.
            self._remove(self._path(bad))
            skipped = (*skipped, *self._try_save(following))
        return Booted(package, standing.package.named, skipped)

    def delete(self, unwanted: Collection[Entry]) -> Booted:
        """Let none of the `unwanted` packages recognise any more nor be fallen back on, and overwrite their files.

        Released versions are never deleted. Works on a full disk too.

        Raises:
            UsageError: nothing was installed.
            PackageError: `package-corrupt`, nothing else verifies; everything stays.
            StorageError: `storage-failed`; called again, it goes on.
        """
        pointer = self.required
        wanted = pointer.avoiding(unwanted)
        standing, package, skipped = self._first_good(wanted.standings())
        following = wanted if standing == wanted.current else wanted.fallen_back(standing)
        surplus = [path for path in self._packages() if path not in {self._path(e) for e in following.entries()}]
        try:
            self._point(following)
        except StorageError as error:
            if error.code is not Code.STORAGE_FULL:
                raise
            for path in surplus:
                shred_file(path)
            self._point(following)
        for path in surplus:
            shred_file(path)
        return Booted(package, standing.package.named, skipped)

    def boot(self) -> Booted:
        """The student that recognises from now on, verified: the current one, or else what it can fall back on.

        Where something was damaged the fallback is written down, so that the next boot begins there; should that fail,
        it is reported, and the fallback recognises all the same. What could only not be read is tried again next time.

        Raises:
            UsageError: nothing was installed.
            PackageError: `package-corrupt`, nothing on disk verifies.
        """
        pointer, earlier = self.required, self._skipped
        standing, package, here = self._first_good(pointer.standings())
        skipped, self._skipped = (*earlier, *here), ()
        self._pointer = pointer if standing == pointer.current else pointer.fallen_back(standing)
        if not skipped:
            self._tidy()
        elif all(skip.damaged for skip in skipped):
            skipped = (*skipped, *self._try_save(self._pointer))
        return Booted(package, standing.package.named, skipped)

    def prune(self) -> int:
        """Remove packages that nobody needs; returns how many. Every change does so by itself.

        Kept are the current student, the one to fall back on, and the released versions of both.

        Raises:
            StorageError: `storage-failed`.
        """
        needed = frozenset[Entry]() if self._pointer is None else self._pointer.entries()
        kept = {self._path(entry) for entry in needed}
        surplus = [path for path in self._packages() if path not in kept]
        for path in surplus:
            self._remove(path)
        return len(surplus)

    def _commit(self, entry: Entry, data: bytes, pointer: Pointer) -> None:
        """Write a verified package, then let `pointer` name it."""
        try:
            atomic_write(self._path(entry), data)
            self._save(pointer)
        except StorageError:
            self._tidy()
            raise

    def _save(self, pointer: Pointer) -> None:
        self._point(pointer)
        self._tidy()

    def _point(self, pointer: Pointer) -> None:
        atomic_write(self._folder / CURRENT, pointer.as_bytes())
        self._pointer = pointer

    def _try_save(self, pointer: Pointer) -> tuple[Skipped, ...]:
        """Let `pointer` hold in any case, on disk if possible; what stood in the way."""
        self._pointer = pointer
        try:
            self._save(pointer)
        except StorageError as error:
            return (_skipped(CURRENT, error),)
        return ()

    def _tidy(self) -> None:
        """Prune; what cannot be removed now is tried again at the next change."""
        with contextlib.suppress(StorageError):
            self.prune()

    def _load(self) -> Pointer | None:
        """The pointer on disk, or one to what is found without it."""
        path = self._folder / CURRENT
        try:
            return Pointer.from_bytes(read_bytes(path, at_most=MAX_POINTER_BYTES))
        except TutelageError as error:
            found = self._found()
            if found is not None or path.exists():
                self._skipped = (_skipped(CURRENT, error),)
            return found

    def _found(self) -> Pointer | None:
        """The newest released version among the packages, with the numbers that its local generations took."""
        entries = [entry for path in self._packages() for entry in self._vouched(path)]
        released = max((entry for entry in entries if entry.named.is_released), key=_age, default=None)
        if released is None:
            return None
        taken: dict[str, int] = {}
        for generation in sorted(entry.named for entry in entries if not entry.named.is_released):
            taken[str(generation.version)] = generation.local
        return Pointer(Standing(released, released), taken=taken)

    def _vouched(self, path: Path) -> Iterable[Entry]:
        """What the file `path` holds, if the right key vouches for it."""
        for keys, is_released in ((self._cloud_keys, True), ((self._device_key,), False)):
            with contextlib.suppress(PackageError, StorageError):
                entry = _entry(read_package(path, trusted=keys))
                if entry.named.is_released is is_released and path == self._path(entry):
                    yield entry

    def _first_good(self, standings: Iterable[Standing]) -> tuple[Standing, StudentPackage, tuple[Skipped, ...]]:
        """The first of `standings` whose package verifies, and why those before it do not."""
        skipped: list[Skipped] = []
        for standing in standings:
            try:
                return standing, self._read(standing.package), tuple(skipped)
            except (PackageError, StorageError) as error:
                skipped.append(_skipped(standing.package.generation, error))
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped) or "there is no other"
        raise PackageError(
            Code.PACKAGE_CORRUPT, f"{self._folder} holds no student to use ({reasons}): install a released one"
        )

    def _read(self, entry: Entry) -> StudentPackage:
        """The package that `entry` names, verified by the key that its generation needs."""
        keys = self._cloud_keys if entry.named.is_released else (self._device_key,)
        package = read_package(self._path(entry), trusted=keys)
        if _entry(package) != entry:
            raise PackageError(
                Code.PACKAGE_CORRUPT, f"{self._path(entry)} holds {package.info.version}, not what its name says"
            )
        return package

    @property
    def required(self) -> Pointer:
        """As `pointer`.

        Raises:
            UsageError: nothing was installed.
        """
        if self._pointer is None:
            raise UsageError(f"{self._folder} holds no student: install a released package first")
        return self._pointer

    def _packages(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))

    def _path(self, entry: Entry) -> Path:
        return self._folder / (entry.digest.partition(":")[2] + SUFFIX)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path, "removed") from error


def _skipped(name: str, error: TutelageError) -> Skipped:
    unreadable = isinstance(error, StorageError) and not isinstance(error.__cause__, FileNotFoundError)
    return Skipped(name, error.message, damaged=not unreadable)


def _entry(package: StudentPackage) -> Entry:
    return Entry(package.info.version, package.digest)


def _age(entry: Entry) -> tuple[Generation, str]:
    return entry.named, entry.digest


def _check_installable(entry: Entry, pointer: Pointer, *, allow_older: bool, allow_reverted: bool) -> None:
    """Refuse what would undo a newer release or bring back what was bad here."""
    present = pointer.current.released.named
    if entry.named == present and not allow_older:
        raise UsageError(f"another package is already {present} here: a version never changes, release a new one")
    if entry.named < present and not allow_older:
        raise UsageError(f"{entry.named} is older than {present}: allow older versions to go back on purpose")
    for reverted in pointer.reverted:
        if reverted.digest == entry.digest and not allow_reverted:
            raise UsageError(
                f"{entry.named} was reverted on this device ({reverted.reason}): install another version, or allow it"
            )


def _signature(fault: str) -> PackageError:
    return PackageError(Code.PACKAGE_SIGNATURE, f"this package cannot be used: {fault}")
