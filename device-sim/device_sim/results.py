"""What a simulation found out: one file, `result.json`, of which table, report and documentation are made.

Everything shown anywhere comes from here, so that a number in a report can be looked up and none can be made up. Rates
are fractions from 0 to 1 at the threshold that was fixed before any training; None means that it was not measured.
Layout of the file: a JSON object with the fields of `Result`, one field a line.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from device_sim.sampling import SampleRules
from device_sim.typed_json import Bounds, plain, typed
from tutelage.errors import Code, StorageError, UsageError
from tutelage.files import atomic_write, read_bytes

FROZEN = "frozen student"
SELF_DISTILLED = "self-distilled"
TEACHER = "teacher"

MAX_FILE_BYTES = 256 * 2**20
"""More than any simulation writes; a larger file is somebody's mistake."""

_PNG = b"\x89PNG\r\n\x1a\n"

Rate = Annotated[float, Bounds(0.0, 1.0)]
Count = Annotated[int, Bounds(0)]
Amount = Annotated[float, Bounds(0.0)]
Verdict = Literal["passed", "failed", "killed"]


@dataclass(frozen=True)
class Rates:
    """How well one student or teacher recognises at one time."""

    fnmr: Rate | None
    """Share of genuine attempts that miss at FMR 1e-3."""
    rank1: Rate | None
    """Share of attempts whose nearest person is the right one."""
    strangers: Rate | None = None
    """Share of attempts by people nobody enrolled that are accepted as someone."""


@dataclass(frozen=True)
class TableRow:
    """One student or teacher, before and after the drift."""

    name: str
    """`FROZEN`, `SELF_DISTILLED` and `TEACHER` are known; others are shown below them."""
    before: Rates
    """On sensors as they were when the persons enrolled."""
    after: Rates
    """At the end of the simulated time."""


@dataclass(frozen=True)
class LabelCounts:
    """What came of asking the teacher."""

    asked: Count
    """Attempts sent."""
    stored: Count
    """Answers that named a person."""
    abstained: Count
    """Answers in which the teacher would not say."""
    precision: Rate | None
    """Share of the stored labels that name the right person."""


@dataclass(frozen=True)
class SampleCounts:
    """Captures kept, and those that a rule kept out."""

    first: Count
    """First samples: accepted, with a score inside the sample interval."""
    second: Count
    """Second samples: the last of several failures in one attempt."""
    dropped: Mapping[str, Count]
    """Captures not kept, by the rule that decided."""


@dataclass(frozen=True)
class Training:
    """One self-distillation on one device."""

    device: Count
    day: Amount
    generation: str
    """Name it would bear, like `v1+2`, whether it passed or not."""
    samples: Count
    steps: Count
    seconds: Amount
    """By the clock of the machine, not of the simulation."""
    peak_bytes: Count
    """Most memory the training process held."""
    verdict: Verdict
    """Of the gate; `killed` where the training ended before it came to one."""
    reasons: tuple[str, ...]
    """Why, with the numbers the gate compared."""


@dataclass(frozen=True)
class DayPoint:
    """One device at one day."""

    day: Amount
    wear: Rate | None
    """Of the sensor; None where the images are drifted otherwise."""
    frozen_fnmr: Rate | None
    """Misses of the student as it was shipped."""
    live_fnmr: Rate | None
    """Misses of the student that runs on the device that day."""
    generation: str
    """That student."""


@dataclass(frozen=True)
class DetCurve:
    """Detection error trade-off (ISO/IEC 19795-1): pairs of FMR and FNMR over all thresholds."""

    fmr: tuple[Rate, ...]
    fnmr: tuple[Rate, ...]

    def __post_init__(self) -> None:
        """Refuse rates that are no pairs."""
        if len(self.fmr) != len(self.fnmr):
            raise UsageError(f"a DET curve needs pairs: {len(self.fmr)} FMR but {len(self.fnmr)} FNMR")

    @staticmethod
    def thinned(fmr: ArrayLike, fnmr: ArrayLike, points: int = 300) -> DetCurve:
        """About as many `points` of a curve as a plot can show, evenly spaced in normal deviates, its ends among them.

        Spaced evenly by threshold or rank, almost all points would lie at high FMR, where nobody operates a device.
        """
        pairs = np.stack([np.asarray(fmr, dtype=np.float64), np.asarray(fnmr, dtype=np.float64)])  # (2, N)
        steps = np.abs(np.diff(ndtri(np.clip(pairs, 1e-6, 1 - 1e-6)))).sum(0)
        place = np.concatenate([[0.0], np.cumsum(steps)])
        cell = np.floor(place / max(place[-1], 1e-12) * (points - 1))
        chosen = np.flatnonzero(np.diff(cell, prepend=-1.0))
        last = pairs.shape[1] - 1
        kept = pairs[:, np.union1d(chosen, [last])] if last >= 0 else pairs
        return DetCurve(tuple(kept[0].tolist()), tuple(kept[1].tolist()))


@dataclass(frozen=True)
class KeptCapture:
    """One sample as a picture; only of synthetic persons, or where the owner of the images asked for it."""

    png: str
    """A PNG file in base64."""
    device: Count
    day: Amount
    kind: Literal["first", "second"]
    label: str
    """Person it is kept for; empty where the teacher abstained."""
    score: float | None
    reason: str
    """Rule that kept it, or who labelled it and why."""

    def __post_init__(self) -> None:
        """Refuse what is no PNG: this text is put into a page."""
        try:
            data = base64.b64decode(self.png, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"a kept capture of device {self.device} is not in base64") from error
        if not data.startswith(_PNG):
            raise UsageError(f"a kept capture of device {self.device} is no PNG file")


@dataclass(frozen=True)
class EventLine:
    """One thing that happened on one device."""

    day: Amount
    device: Count
    kind: str
    reason: str


@dataclass(frozen=True)
class Made:
    """With what the result was made; who repeats it needs the same."""

    commit: str
    machine: str
    python: str
    torch: str
    seeds: tuple[int, ...]
    date: str


@dataclass(frozen=True)
class ScoreMarks:
    """The scores at which rules change, to be drawn beside distributions."""

    accept: float
    low: float
    """Start of the sample interval."""
    high: float
    """Its end."""


@dataclass(frozen=True)
class Result:
    """Everything one simulation found out."""

    kind: Literal["synthetic", "images"]
    title: str
    made: Made
    settings: Mapping[str, Any]
    """Anything JSON can carry. `accept_score`, `sample_low` and `sample_high` are looked up here at any depth; `notes`,
    a list of sentences on how the models were made, stands at the top of the report."""
    table: tuple[TableRow, ...]
    labels: LabelCounts
    samples: SampleCounts
    trainings: tuple[Training, ...] = ()
    timeline: Mapping[str, tuple[DayPoint, ...]] = field(default_factory=dict)
    """By device."""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Scores, -10·log10(FMR), by who attempted, which student, which sensor."""
    det: Mapping[str, DetCurve] = field(default_factory=dict)
    kept: tuple[KeptCapture, ...] = ()
    events: tuple[EventLine, ...] = ()

    def row(self, name: str) -> TableRow | None:
        """The row called `name`; None where there is none."""
        return next((row for row in self.table if row.name == name), None)

    @property
    def marks(self) -> ScoreMarks:
        """Scores of the rules in force: from the settings, else the defaults of sampling."""
        rules = SampleRules()
        return ScoreMarks(
            accept=_setting(self.settings, "accept_score", rules.accept_score),
            low=_setting(self.settings, "sample_low", rules.sample_low),
            high=_setting(self.settings, "sample_high", rules.sample_high),
        )

    def as_json(self) -> dict[str, Any]:
        """Fields as JSON's own types; numbers and arrays of numpy are taken too."""
        fields: dict[str, Any] = plain(self)
        return fields

    @staticmethod
    def from_json(data: Any) -> Result:
        """The result that `as_json` described.

        Raises:
            UsageError: A field is missing, unknown, of another type or out of its range; says which.
        """
        result: Result = typed(Result, data, "result")
        return result


def write_result(result: Result, path: Path) -> None:
    """Make `path` hold `result`, whole or not at all.

    Raises:
        UsageError: The result breaks its own rules, a rate of NaN for instance; nothing was written.
        StorageError: `storage-full` or `storage-failed`.
    """
    checked = Result.from_json(result.as_json()).as_json()
    lines = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in checked.items())
    atomic_write(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_result(path: Path) -> Result:
    """The result in the file `path`.

    Raises:
        StorageError: `storage-failed`, it cannot be read.
        UsageError: It holds no result.
    """
    data = read_bytes(path, at_most=MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise StorageError(Code.STORAGE_FAILED, f"{path} has more than {MAX_FILE_BYTES} bytes: no result is that large")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} holds no JSON: name the result.json that a simulation wrote") from error
    return Result.from_json(fields)


def _setting(settings: Mapping[str, Any], name: str, default: float) -> float:
    """The number called `name` in `settings` or in one of its groups, the outermost first."""
    value = settings.get(name)
    if isinstance(value, int | float):
        return float(value)
    for group in settings.values():
        if isinstance(group, Mapping):
            default = _setting(group, name, default)
    return default
