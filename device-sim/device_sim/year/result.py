"""What a simulated year found out: one file, `year.json`, of which the report and the documentation are made.

Rates are fractions from 0 to 1 at the accept score, which is fixed before anything is simulated. Whatever is told by
recogniser is told of `frozen student`, `template adaptation` and `self-distilled`. Layout of the file: a JSON object
with the fields of `Year`, one field a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_sim.results import Amount, Count, Made, Rate
from device_sim.typed_json import plain, typed
from tutelage.errors import UsageError
from tutelage.files import atomic_write, read_bytes

MAX_FILE_BYTES = 64 * 2**20
"""More than any year writes; a larger file is somebody's mistake."""

Counts = Mapping[str, Count]
"""By recogniser."""
Rates = Mapping[str, Rate | None]
"""By recogniser."""


@dataclass(frozen=True)
class Attempts:
    """Attempts of some days, and how they ended."""

    genuine: Count
    """Of enrolled persons."""
    impostors: Count
    """Of strangers who try their luck."""
    hostile: Count
    """Of attackers."""
    missed: Counts
    """Genuine attempts whose first capture was not accepted as who it was."""
    failed: Counts
    """Genuine attempts of which no capture was."""
    admitted: Counts
    """Attempts of impostors of which a capture was accepted as anybody."""
    hostile_admitted: Counts
    """Attempts of attackers of which one was."""


@dataclass(frozen=True)
class Probed:
    """Rates on captures that no device met, on the sensor as it was that day unless said otherwise."""

    misses: Rates
    """Share of captures of enrolled persons that are not accepted as who they are."""
    strangers: Rates
    """Share of strangers' captures that are accepted as anybody."""
    strangers_new: Rates
    """The same share of their captures as a new sensor of the same make would have taken them."""


@dataclass(frozen=True)
class Kept:
    """What lay in a device's store, and what came of its trainings so far."""

    first: Count
    """First samples."""
    second: Count
    """Second samples."""
    labelled: Count
    """Of these, named by the teacher."""
    abstained: Count
    """Of these, those for which it would not name anybody."""
    waiting: Count
    """Of these, not yet answered for."""
    quarantined: Count
    """Samples of both kinds that nobody learns from."""
    generations: Count
    """Local students that recognised."""
    refused: Count
    """Local students that the gate refused."""
    reverted: Count
    """Times that a former student was brought back."""
    bytes: Count
    """In use in the store."""
    training_seconds: Amount
    """Of all trainings, by the clock of the machine."""


@dataclass(frozen=True)
class Page:
    """One device from the day after the last page to `day`, and as it was then."""

    day: Count
    sensor: Count
    """Which one was mounted, from 0."""
    wear: Rate
    moisture: float
    """-1..1: dry to wet."""
    gain: float
    """-1..1: dark to bright."""
    online: bool
    persons: Count
    """Enrolled."""
    generation: str
    """Student that recognised."""
    attempts: Attempts
    probed: Probed
    kept: Kept


@dataclass(frozen=True)
class Incident:
    """One thing that happened to a device."""

    day: Count
    kind: str
    words: str


@dataclass(frozen=True)
class Promises:
    """What must never happen, counted, and the occasions for it."""

    captures: Count
    """Captures before the device."""
    unanswered: Count
    """Of these, those that were not answered."""
    enrolments: Count
    """Enrolments, one for each person."""
    re_enrolments: Count
    """Enrolments of somebody who had been enrolled before."""
    persons_lost: Count
    """Persons who were enrolled but not known, by day."""
    erasures: Count
    """Persons who left for good."""
    persons_remembered: Count
    """Persons who were erased but still known, by day."""
    spaces_mixed: Count
    """Days on which references lay in another space than the running student's."""
    restarts: Count
    """Starts after a power cut."""
    nights_without_labels: Count
    """Nights on which the teacher was to be asked and could not be reached."""


@dataclass(frozen=True)
class DeviceYear:
    """One device's year."""

    number: Count
    pages: tuple[Page, ...]
    incidents: tuple[Incident, ...]
    promises: Promises
    seconds: Amount
    """That it took to simulate, by the clock of the machine."""


@dataclass(frozen=True)
class Year:
    """Everything that a simulated year found out."""

    made: Made
    settings: Mapping[str, Any]
    """As they were, as JSON takes them."""
    devices: tuple[DeviceYear, ...]
    seconds: Amount
    """That all of it took on this machine, releases included."""

    def as_json(self) -> dict[str, Any]:
        """Fields as JSON's own types."""
        fields: dict[str, Any] = plain(self)
        return fields

    @staticmethod
    def from_json(data: Any) -> Year:
        """The year that `as_json` described.

        Raises:
            UsageError: a field is missing, unknown, of another type or out of its range; says which.
        """
        year: Year = typed(Year, data, "year")
        return year


def write_year(year: Year, path: Path) -> None:
    """Make `path` hold `year`, whole or not at all.

    Raises:
        UsageError: the year breaks its own rules; nothing was written.
        StorageError: `storage-full` or `storage-failed`.
    """
    checked = Year.from_json(year.as_json()).as_json()
    lines = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in checked.items())
    atomic_write(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_year(path: Path) -> Year:
    """The year in the file `path`.

    Raises:
        StorageError: `storage-failed`, it cannot be read.
        UsageError: it holds no year.
    """
    try:
        fields = json.loads(read_bytes(path, at_most=MAX_FILE_BYTES))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} holds no JSON: name the year.json that a simulation wrote") from error
    return Year.from_json(fields)
