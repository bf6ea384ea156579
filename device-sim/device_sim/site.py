"""A site: one device with its persons, the captures that come to it over time, and captures to measure with.

Sites are made from synthetic masters (`synthetic_site`) or from the rows of a manifest (`image_site`). Whatever made
it, a site is the same thing: references, a stream of attempts, probes of a new and of a worn sensor, strangers, and a
set of impostors for calibration whom nobody at this site resembles on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from device_sim.drift import Drift, conditions_at_wear
from device_sim.masters import grow_masters
from device_sim.sensor import Condition, Presses, Sensor
from tutelage.captures import Pixels, read_capture
from tutelage.errors import CaptureError, Code, ManifestError
from tutelage.manifest import Manifest, Row, Skipped, Split, load_captures
from tutelage.nn.packaging import NEGATIVE, Strangers

STRANGER = ""
"""Person of a capture that nobody enrolled made."""
SETTLED = 0.5
"""Share of a site's days after which its sensor has reached its wear and stays as it is."""
_IMPOSTORS_FROM = 500_000
_STRANGERS_FROM = 700_000


@dataclass(frozen=True)
class Taken:
    """Captures with the person who made each."""

    persons: tuple[str, ...]
    captures: tuple[Pixels, ...]

    def __len__(self) -> int:
        """Number of captures."""
        return len(self.captures)

    @staticmethod
    def of(pairs: Iterable[tuple[str, Pixels]]) -> Taken:
        """From pairs of person and capture."""
        found = list(pairs)
        return Taken(tuple(p for p, _ in found), tuple(c for _, c in found))

    @staticmethod
    def of_strangers(strangers: Strangers) -> Taken:
        """The captures of an impostor set."""
        return Taken(tuple(strangers.persons), tuple(strangers.captures))

    def without(self, persons: Container[str]) -> Taken:
        """Those of everybody else."""
        pairs = zip(self.persons, self.captures, strict=True)
        return Taken.of((p, c) for p, c in pairs if p not in persons)


@dataclass(frozen=True)
class Attempt:
    """One person who comes to the device on a day and tries until accepted, at most `len(tries)` times."""

    day: int
    person: str
    """`STRANGER` for somebody who is not enrolled."""
    tries: Callable[[int], Pixels]
    """The capture of try 0, 1, ...; decided by the seed, made when asked for."""


@dataclass(frozen=True)
class Site:
    """Everything that happens at one device, and what it is measured with."""

    number: int
    days: int
    references: Taken
    probes_new: Taken
    """Of the enrolled persons, on the sensor as it was on day 0."""
    probes_worn: Taken
    """Of the enrolled persons, on the sensor at the end."""
    strangers_new: Taken
    strangers_worn: Taken
    impostors: Strangers
    """The released package's impostor set: other people, new sensors."""
    attempts: Callable[[int], Iterator[Attempt]]
    """The attempts of a day, 0 .. days - 1, in order."""
    condition: Callable[[int], Condition]
    """The sensor's condition on a day."""
    probes_on: Callable[[int], Taken]
    """Other captures of the enrolled persons, on the sensor as it is on a day."""

    @property
    def persons(self) -> tuple[str, ...]:
        """Enrolled persons, each once."""
        return tuple(dict.fromkeys(self.references.persons))

    def without(self, persons: Container[str]) -> Site:
        """The same site, to which `persons` never come."""
        return replace(
            self,
            references=self.references.without(persons),
            probes_new=self.probes_new.without(persons),
            probes_worn=self.probes_worn.without(persons),
            attempts=lambda day: (a for a in self.attempts(day) if a.person not in persons),
            probes_on=lambda day: self.probes_on(day).without(persons),
        )


@dataclass(frozen=True)
class SiteSize:
    """How large a synthetic site is."""

    persons: int = 16
    references: int = 3
    """Enrolment captures a person."""
    probes: int = 6
    """Of each person and sensor state."""
    strangers: int = 60
    days: int = 20
    attempts: float = 1.0
    """Mean attempts a person and day."""
    stranger_share: float = 0.02
    """Of all attempts."""
    wear: float = 0.5
    """Wear of the sensor on the last day; here the shipped student, unadapted, loses 20 to 40 points of TAR."""


def impostor_set(seed: int, unseen: int = 150, negatives: int = 60) -> Strangers:
    """One capture each of people on good sensors; the two lowest bits are cleared: they are noise and cost space.

    The first `unseen` calibrate and judge, the others are there to train against.
    """
    persons = unseen + negatives
    rng = np.random.default_rng([seed, 11])
    masters, captures = grow_masters(seed, range(_IMPOSTORS_FROM, _IMPOSTORS_FROM + persons)), []
    for i, master in enumerate(masters):
        condition = conditions_at_wear(float(rng.uniform(0, 0.1)))
        presses = Presses.of(seed, _IMPOSTORS_FROM + i, [0])
        captures.append(Sensor(seed + 1, i % 32).capture(master[None], presses, condition)[0] & np.uint8(0xFC))
    names = [f"impostor-{i:03d}" if i < unseen else f"{NEGATIVE}{i:03d}" for i in range(persons)]
    return Strangers(captures, names)


@dataclass(frozen=True)
class People:
    """Synthetic persons with consecutive numbers."""

    names: Sequence[str]
    masters: torch.Tensor
    """One ridge pattern each, as `grow_masters` gives them."""
    first: int
    """Number of the first: decides, with the seed, how each of them presses a sensor."""


def synthetic_site(seed: int, number: int, size: SiteSize, impostors: Strangers) -> Site:
    """A site whose persons are synthetic fingers; everything follows from `(seed, number)`."""
    first, strangers_from = number * size.persons, _STRANGERS_FROM + number * size.strangers
    names = [f"person-{first + i:03d}" for i in range(size.persons)]
    enrolled = People(names, grow_masters(seed, range(first, first + size.persons)), first)
    strange = grow_masters(seed, range(strangers_from, strangers_from + size.strangers))
    strangers = People([STRANGER] * size.strangers, strange, strangers_from)
    sensor, drift = Sensor(seed, number), Drift(seed, number, max(1, round(size.days * SETTLED)), size.wear)
    new, worn = Condition(), drift.at(size.days)

    def taken(people: People, at: Condition, *, base: int, each: int) -> Taken:
        pairs: list[tuple[str, Pixels]] = []
        for i, name in enumerate(people.names):
            presses = Presses.of(seed, people.first + i, range(base, base + each))
            pairs += [(name, c) for c in sensor.capture(people.masters[i].expand(each, -1, -1), presses, at)]
        return Taken.of(pairs)

    def attempts(day: int) -> Iterator[Attempt]:
        rng = np.random.default_rng([seed, number, 12, day])
        for turn in range(int(rng.poisson(size.attempts * size.persons))):
            who = int(rng.integers(size.persons))
            stranger = bool(rng.random() < size.stranger_share) and size.strangers > 0
            of = strange[who % size.strangers] if stranger else enrolled.masters[who]
            press = 10_000 + (day * 1000 + turn) * 10

            def tries(k: int, of: torch.Tensor = of, who: int = first + who, press: int = press) -> Pixels:
                return sensor.capture(of[None], Presses.of(seed, who, [press + k]), drift.at(day))[0]

            yield Attempt(day, STRANGER if stranger else names[who], tries)

    return Site(
        number=number,
        days=size.days,
        references=taken(enrolled, new, base=0, each=size.references),
        probes_new=taken(enrolled, new, base=100, each=size.probes),
        probes_worn=taken(enrolled, worn, base=200, each=size.probes),
        strangers_new=taken(strangers, new, base=100, each=1),
        strangers_worn=taken(strangers, worn, base=200, each=1),
        impostors=impostors,
        attempts=attempts,
        condition=drift.at,
        probes_on=lambda day: taken(enrolled, drift.at(day), base=300 + 10 * day, each=2),
    )


@dataclass(frozen=True)
class ImageDrift:
    """How real images are drifted and repeated."""

    days: int = 12
    wear: float = 0.2
    """Wear of the simulated sensor before which the images are held, on the last day."""
    attempts: int = 1
    """Attempts a person and day."""


def image_site(  # noqa: PLR0917 - the first four say where
    manifest: Manifest, seed: int, number: int, sites: int, drift: ImageDrift, impostors: Strangers
) -> Site:
    """Site `number` of `sites` among which the manifest's enrolled persons are shared out.

    Persons whose enrolment images cannot be read do not come.

    Raises:
        ManifestError: `data-insufficient`, the site would have fewer than two persons, or none to stream or probe.
    """
    references = _by_person(manifest, Split.ENROL, manifest.persons(Split.ENROL)[number::sites])
    names = tuple(references)
    stream, probes = (_by_person(manifest, split, names) for split in (Split.STREAM, Split.PROBE))
    if len(names) < 2 or not stream or not probes:
        raise ManifestError(
            Code.DATA_INSUFFICIENT,
            f"device {number} needs two persons or more with enrol, stream and probe images: use fewer devices, "
            "or add images",
        )
    sensor, ageing = Sensor(seed, number), Drift(seed, number, max(1, round(drift.days * SETTLED)), drift.wear)
    strangers = _loaded(manifest.select(Split.STRANGER))

    def seen(pairs: Sequence[tuple[str, Pixels]], at: Condition, moment: int) -> Taken:
        return Taken.of([(p, sensor.observe(c, at, moment + i)) for i, (p, c) in enumerate(pairs)])

    def attempts(day: int) -> Iterator[Attempt]:
        rng = np.random.default_rng([seed, number, 13, day])
        for turn, who in enumerate(np.tile(rng.permutation(len(names)), drift.attempts)):
            images = stream.get(names[who], [])

            def tries(k: int, images: Sequence[Pixels] = images, turn: int = turn) -> Pixels:
                moment = 1_000_000 + (day * 1000 + turn) * 10 + k
                return sensor.observe(images[(day + k) % len(images)], ageing.at(day), moment)

            if images:
                yield Attempt(day, names[who], tries)

    enrolled, probed = ([(p, c) for p, cs in found.items() for c in cs] for found in (references, probes))
    unknown = [(STRANGER, c) for _, c in strangers]
    return Site(
        number=number,
        days=drift.days,
        references=Taken.of(enrolled),
        probes_new=seen(probed, Condition(), 1000),
        probes_worn=seen(probed, ageing.at(drift.days), 2000),
        strangers_new=seen(unknown, Condition(), 3000),
        strangers_worn=seen(unknown, ageing.at(drift.days), 4000),
        impostors=impostors,
        attempts=attempts,
        condition=ageing.at,
        probes_on=lambda day: seen(probed, ageing.at(day), 10_000 + 100 * day),
    )


def readable(manifest: Manifest) -> tuple[Manifest, tuple[Skipped, ...]]:
    """The manifest without the rows whose image cannot be read, and those rows with what is wrong.

    Raises:
        ManifestError: `data-insufficient`, not one image can be read.
    """
    rows: list[Row] = []
    skipped: list[Skipped] = []
    for row in manifest.rows:
        try:
            read_capture(row.path)
        except CaptureError as error:
            skipped.append(Skipped(row, error.message))
        else:
            rows.append(row)
    if skipped and not rows:
        raise ManifestError(
            Code.DATA_INSUFFICIENT, f"none of {len(skipped)} images could be read, the first: {skipped[0].reason}"
        )
    return Manifest(tuple(rows), manifest.skipped), tuple(skipped)


def _by_person(manifest: Manifest, split: Split, names: Iterable[str]) -> dict[str, list[Pixels]]:
    """Captures of a split by person, only of `names`, in the order of `names`."""
    found: dict[str, list[Pixels]] = {name: [] for name in names}
    for person, capture in _loaded([row for row in manifest.select(split) if row.person in found]):
        found[person].append(capture)
    return {person: captures for person, captures in found.items() if captures}


def _loaded(rows: Sequence[Row]) -> list[tuple[str, Pixels]]:
    """Person and capture of each readable row; nothing of no rows."""
    if not rows:
        return []
    loaded = load_captures(rows)
    return [(row.person, capture) for row, capture in zip(loaded.rows, loaded.captures, strict=True)]


__all__ = [
    "STRANGER",
    "Attempt",
    "ImageDrift",
    "Site",
    "SiteSize",
    "Taken",
    "image_site",
    "impostor_set",
    "readable",
    "synthetic_site",
]
