"""A fleet in simulated time: devices meet their streams by day, and fetch labels, train and swap by night.

Trainings of one night run side by side, each in its own process. Time is simulated, processes and disks are real. What
goes wrong at one device keeps the others from nothing: it is shown as that device's verdict, and the device goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_sim.device import Device
from device_sim.device_settings import DeviceKeys, DeviceSettings
from device_sim.generations import Generations
from device_sim.recognition import Recognition
from device_sim.site import STRANGER, Attempt, Site
from device_sim.store import Store
from device_sim.training import Training
from tutelage.biometrics.matching import Decision
from tutelage.errors import InputError, TutelageError
from tutelage.files import make_folder
from tutelage.labelling import Labeller
from tutelage.sealing import make_key, read_key
from tutelage.signing import make_signer, read_signer

DAY_S = 86_400.0
EPOCH_S = 1_767_225_600.0
"""Start of simulated time, 2026-01-01 in UTC."""
NIGHT_S = 80_000.0
PARALLEL_TRAININGS = 3
"""More than this machine may have cores for: three at once end sooner than two and then one."""
POLL_S = 0.2

_log = structlog.get_logger()


@dataclass
class SimulatedClock:
    """Seconds since the epoch as the simulation wants them."""

    now_s: float = EPOCH_S

    def __call__(self) -> float:
        """The simulated time; each look takes a millisecond, so that no two things happen at once."""
        self.now_s += 0.001
        return self.now_s

    def set(self, day: int, second: float) -> None:
        """Go to `second` of `day`, never back."""
        self.now_s = max(self.now_s, EPOCH_S + day * DAY_S + second)


@dataclass
class Tally:
    """What a device did so far, counted by who knows the truth."""

    genuine: int = 0
    """Attempts of enrolled persons."""
    missed: int = 0
    """Of these, not accepted as themselves."""
    strange: int = 0
    """Attempts of strangers."""
    admitted: int = 0
    """Of these, accepted as anybody."""
    truth: dict[int, str] = field(default_factory=dict)
    """Person of each capture, by decision id."""
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=30))
    """Whether the latest genuine attempts missed."""


@dataclass
class Post:
    """One device at its site."""

    site: Site
    device: Device
    clock: SimulatedClock
    tally: Tally = field(default_factory=Tally)
    training: Training | None = None
    refused: int = 0
    """Persons of the site who could not be enrolled."""
    verdict: str = ""
    """Of the last training, in words; or what went wrong last."""

    def close(self) -> None:
        """Put the device down: its training ends, to be resumed another time, and its store is closed."""
        self.device.stop()
        self.device.store.close()


class Observer(Protocol):
    """Whoever watches a simulation."""

    def on_day(self, day: int, posts: Sequence[Post]) -> None:
        """A day is over, its night included."""

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        """Trainings are under way; called several times a second."""


@dataclass(frozen=True)
class Release:
    """What the cloud sends to every device, and whom devices trust."""

    package: bytes
    trusted: Ed25519PublicKey
    fleet_key: bytes = field(repr=False)


def install(
    site: Site,
    folder: Path,
    release: Release,
    *,
    labeller: Labeller,
    settings: DeviceSettings,
) -> Post:
    """Put up a device at `site`, with keys of its own in `folder`, and enrol the site's persons, at `labeller` too.

    Raises:
        InputError: `data-insufficient`, the teacher can use references of fewer than two persons.
        PackageError: the release cannot be trusted.
        StorageError: `folder` cannot be written, or holds a device already.
    """
    clock = SimulatedClock()
    unpack(folder, release)
    device = boot(folder, release, labeller=labeller, settings=settings, clock=clock)
    with ExitStack() as failing:
        failing.callback(device.store.close)
        refused = _enrol_all(site, device)
        failing.pop_all()
    return Post(site.without(refused) if refused else site, device, clock, refused=len(refused))


def unpack(folder: Path, release: Release) -> None:
    """Make a device in `folder` that nobody is enrolled at, with keys of its own and the student of `release`.

    Raises:
        PackageError: the release cannot be trusted.
        StorageError: `folder` cannot be written, or holds a device already.
    """
    make_folder(folder)
    signer = make_signer(folder / "device.key")
    make_key(folder / "store.key")
    _generations(folder, release, signer.public_key()).install(release.package)


def boot(
    folder: Path, release: Release, *, labeller: Labeller, settings: DeviceSettings, clock: Callable[[], float]
) -> Device:
    """The device that lies in `folder`, started; of `release` only the keys are used.

    Raises:
        PackageError: there is no student that can be trusted.
        StorageError: `folder` holds no device, or it is damaged.
    """
    signer, key = read_signer(folder / "device.key"), read_key(folder / "store.key")
    store = Store.open(folder / "store.sqlite", key=key, clock=clock, max_bytes=settings.sampling.max_bytes)
    with ExitStack() as failing:
        failing.callback(store.close)
        device = Device(
            store,
            _generations(folder, release, signer.public_key()),
            labeller,
            DeviceKeys(key, release.fleet_key, signer),
            jobs=folder / "jobs",
            settings=settings,
            clock=clock,
        )
        failing.pop_all()
    return device


def _generations(folder: Path, release: Release, device_key: Ed25519PublicKey) -> Generations:
    return Generations(folder / "students", cloud_keys=[release.trusted], device_key=device_key)


def _enrol_all(site: Site, device: Device) -> frozenset[str]:
    """Enrol the site's persons; returns those who could not be, since the teacher can use none of their references.

    Raises:
        InputError: `data-insufficient`, fewer than two persons could be enrolled.
    """
    refused: dict[str, InputError] = {}
    for person in site.persons:
        pairs = zip(site.references.persons, site.references.captures, strict=True)
        try:
            device.enrol(person, [c for p, c in pairs if p == person])
        except InputError as error:
            refused[person] = error
    if refused and len(site.persons) - len(refused) < 2:
        raise next(iter(refused.values()))
    return frozenset(refused)


def simulate(posts: Sequence[Post], observer: Observer) -> None:
    """Play all days of all sites."""
    for day in range(max(post.site.days for post in posts)):
        for post in posts:
            if day < post.site.days:
                _play_day(post, day)
        _night(posts, day, lambda day=day: observer.on_night(day, posts))  # type: ignore[misc]
        observer.on_day(day, posts)


def _play_day(post: Post, day: int) -> None:
    """All attempts of a day at one device."""
    for turn, attempt in enumerate(post.site.attempts(day)):
        post.clock.set(day, turn * 60.0)
        _play_attempt(post, attempt, f"{day}.{turn}")


def _play_attempt(post: Post, attempt: Attempt, name: str) -> None:
    """One person tries until accepted or out of tries."""
    answer: Recognition | None = None
    for k in range(post.device.settings.sampling.retries):
        before = post.device.store.next_decision_id()
        answer = post.device.recognise(attempt.tries(k), name)
        post.tally.truth[before] = attempt.person
        post.clock.now_s += 2.0
        if answer.decision is Decision.ACCEPT:
            break
    accepted = answer is not None and answer.decision is Decision.ACCEPT
    if attempt.person == STRANGER:
        post.tally.strange += 1
        post.tally.admitted += accepted
    else:
        post.tally.genuine += 1
        missed = not (accepted and answer is not None and answer.match.person == attempt.person)
        post.tally.missed += missed
        post.tally.recent.append(missed)


def _night(posts: Sequence[Post], day: int, waiting: Callable[[], None]) -> None:
    """Labels, then trainings a few at a time, then gates."""
    for post in posts:
        post.clock.set(day, NIGHT_S)
        with _alone(post):
            post.device.fetch_labels()
    for group in _groups(posts, PARALLEL_TRAININGS):
        for post in group:
            with _alone(post):
                begun = post.device.resume_training() or post.device.start_training()
                post.training = begun if isinstance(begun, Training) else None
        while any(post.training is not None and post.training.running() for post in group):
            waiting()
            time.sleep(POLL_S)
        for post in group:
            if post.training is not None:
                outcome = post.device.finish_training(post.training)
                post.verdict = outcome.message if isinstance(outcome, TutelageError) else outcome.lines()[0]
                post.training = None


@contextmanager
def _alone(post: Post) -> Iterator[None]:
    """What fails within concerns this device alone: it is said, and the night goes on."""
    try:
        yield
    except TutelageError as error:
        post.verdict = error.message
        _log.error("a device failed", device=post.site.number, code=error.code.value, reason=error.message)


def _groups(posts: Sequence[Post], size: int) -> Iterator[Sequence[Post]]:
    """`posts` in the order of those most in need of training."""
    order = np.argsort([-post.tally.missed for post in posts], kind="stable")
    for start in range(0, len(posts), size):
        yield [posts[i] for i in order[start : start + size]]
