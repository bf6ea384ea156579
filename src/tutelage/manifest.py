"""Manifests: which image shows which person, and what it may be used for.

A manifest is a CSV file in UTF-8 with the columns `path,person,split,condition`, one row a file. Paths are relative to
the manifest's own folder, or absolute. The rules that make a measurement honest are checked where a manifest is read:
persons are disjoint between the cloud (`teacher`, `distil`, or `cloud` for both), the strangers, and the devices
(`enrol`, `stream`, `probe`); nobody meets a device unless enrolled there; no file is named twice. `split_folder` makes
a manifest that keeps these rules out of a folder with one sub-folder of images a person.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np

from tutelage.captures import Pixels, read_capture
from tutelage.errors import CaptureError, Code, ManifestError, UsageError
from tutelage.files import atomic_write, read_bytes, storage_error


class Split(StrEnum):
    """What an image is used for."""

    TEACHER = "teacher"
    """Trains the teacher."""
    DISTIL = "distil"
    """Distils the student."""
    CLOUD = "cloud"
    """Both `teacher` and `distil`."""
    STRANGER = "stranger"
    """A person whom no device knows, to count who is let in wrongly."""
    ENROL = "enrol"
    """A reference of a person on a device."""
    STREAM = "stream"
    """Met by the device in use, in the manifest's order; it may learn from it."""
    PROBE = "probe"
    """Kept back to measure the device."""


_ROLES: Final = {
    **dict.fromkeys((Split.TEACHER, Split.DISTIL, Split.CLOUD), "cloud"),
    Split.STRANGER: "stranger",
    **dict.fromkeys((Split.ENROL, Split.STREAM, Split.PROBE), "device"),
}
_COLUMNS: Final = ("path", "person", "split", "condition")
_SUFFIXES: Final = frozenset({".png", ".pgm", ".jpg", ".jpeg", ".bmp"})
_LIMIT_BYTES: Final = 256 * 1024 * 1024  # millions of rows; more is no manifest
_PROBLEMS_SHOWN: Final = 10
_FEWEST_PERSONS: Final = 4  # two that a teacher can tell apart, one stranger, one on a device


@dataclass(frozen=True)
class Row:
    """One image of one person."""

    path: Path
    person: str
    split: Split
    condition: str
    """Any text: how the image was taken. Empty where nothing is known."""


@dataclass(frozen=True)
class SkippedPerson:
    """A person of a folder who could not be used."""

    person: str
    reason: str
    """What is missing and what to do about it."""


@dataclass(frozen=True)
class Manifest:
    """Rows that keep the rules of this module, in the order of the file."""

    rows: tuple[Row, ...]
    skipped: tuple[SkippedPerson, ...] = ()
    """Persons whom `split_folder` had to leave out; always empty for a manifest that was read."""

    def select(self, *splits: Split) -> tuple[Row, ...]:
        """Rows of these splits, each once, in the manifest's order; a `cloud` row is a `teacher` and a `distil` row."""
        wanted = set(splits)
        if wanted & {Split.TEACHER, Split.DISTIL}:
            wanted.add(Split.CLOUD)
        return tuple(row for row in self.rows if row.split in wanted)

    def persons(self, *splits: Split) -> tuple[str, ...]:
        """Persons with a row in `select(*splits)`, each once, in the order they first appear."""
        return tuple(dict.fromkeys(row.person for row in self.select(*splits)))


@dataclass(frozen=True)
class Skipped:
    """A row whose image could not be read."""

    row: Row
    reason: str


@dataclass(frozen=True)
class Loaded:
    """The images of some rows."""

    captures: list[Pixels]
    rows: list[Row]
    """`rows[i]` describes `captures[i]`."""
    skipped: list[Skipped]
    """Rows without a capture."""


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a CSV file, with every rule checked and every path joined to the file's folder.

    Blank lines, further columns, and spaces around a person, split or condition are ignored; a byte-order mark is
    accepted. That an image exists is checked, what is in it is not: see `load_captures`.

    Raises:
        ManifestError: `manifest-invalid`, with the line of each broken rule (the first ten); `data-insufficient` for
            a table without rows.
        StorageError: `storage-failed`, the file exists but cannot be read.
    """
    lines: list[tuple[int, Row]] = []
    problems: list[str] = []
    for number, cells in _table(path):
        try:
            lines.append((number, _row(cells, path.parent)))
        except ManifestError as error:
            problems.append(f"line {number}: {error.message}")
    problems += _repeated_files(lines)
    if not problems:  # a row that is missing here could only make these misleading
        problems += _broken_person_rules(lines)
    if problems:
        raise _invalid(f"{path}: {_listing(problems)}")
    if not lines:
        raise ManifestError(Code.DATA_INSUFFICIENT, f"{path}: the table has no rows: add one for each image")
    return Manifest(tuple(row for _, row in lines))


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` so that `read_manifest` gives its rows again; `path` is replaced as a whole or not at all.

    Files below the folder of `path` are written relative to it, so that folder can move; others are absolute.

    Raises:
        ManifestError: `manifest-invalid`, a name that UTF-8 cannot hold.
        StorageError: `storage-full` or `storage-failed`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    folder = path.parent.resolve()
    for row in manifest.rows:
        writer.writerow((_written_path(row.path, folder), row.person, str(row.split), row.condition))
    try:
        data = text.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise _invalid(f"{path}: a file or person has a name that is no valid text: rename it") from error
    atomic_write(path, data)


def split_folder(
    root: Path, *, seed: int = 0, enrol: int = 1, stream: int = 5, stranger_share: float = 0.25
) -> Manifest:
    """Return a person-disjoint manifest of a folder `root/<person>/*.{png,pgm,jpg,jpeg,bmp}`.

    Half of the persons, rounded down, are `cloud`; of the others `stranger_share`, rounded and at least one unless the
    share is 0, are `stranger`; the rest are on devices: the first `enrol` images `enrol`, the next `stream` images
    `stream`, the others `probe`. The last image is always a `probe`, even if that shortens the stream. Images are
    taken in the order of their names, numbers by value (`2.png` before `10.png`). The same folder and `seed` give the
    same manifest on every platform. Hidden files and folders are ignored; a person with fewer than `enrol` + 1
    images, or a name that no manifest can hold, is left out and listed in `skipped`.

    Raises:
        UsageError: `enrol` below 1, `stream` or `seed` below 0, or `stranger_share` outside [0, 1).
        ManifestError: `manifest-invalid`, `root` is no folder; `data-insufficient`, fewer than four usable persons.
        StorageError: `storage-failed`, a folder cannot be listed.
    """
    _check_split(seed, enrol, stream, stranger_share)
    images = _images(root)
    faults = {person: _person_fault(person, len(paths), enrol + 1) for person, paths in images.items()}
    skipped = tuple(SkippedPerson(person, fault) for person, fault in faults.items() if fault)
    for person in skipped:
        del images[person.person]
    if len(images) < _FEWEST_PERSONS:
        needs = f"{len(images)} usable persons of {_FEWEST_PERSONS} needed: make one folder of images a person"
        reasons = [person.reason for person in skipped]
        raise ManifestError(Code.DATA_INSUFFICIENT, f"{root}: {_listing([needs, *reasons])}")
    splits = _person_splits(tuple(images), seed, stranger_share)
    rows = (
        Row(path, person, use, "")
        for person, paths in images.items()
        for path, use in zip(paths, _uses(splits[person], len(paths), enrol, stream), strict=True)
    )
    return Manifest(tuple(rows), skipped)


def load_captures(rows: Sequence[Row]) -> Loaded:
    """Return the captures of `rows` in their order; a file that cannot be read is skipped and reported.

    Raises:
        ManifestError: `data-insufficient`, there are rows and not one could be read.
    """
    loaded = Loaded([], [], [])
    for row in rows:
        try:
            loaded.captures.append(read_capture(row.path))
        except CaptureError as error:
            loaded.skipped.append(Skipped(row, error.message))
        else:
            loaded.rows.append(row)
    if loaded.skipped and not loaded.rows:
        raise ManifestError(
            Code.DATA_INSUFFICIENT, f"none of {len(rows)} images could be read, the first: {loaded.skipped[0].reason}"
        )
    return loaded


def _table(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and cells of each row; a row of a wrong length comes without cells."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for cells in reader:
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True)) if len(cells) == len(header) else {}
    except csv.Error as error:
        raise _invalid(f"{path}: line {reader.line_num}: no CSV ({error}): check the quotes") from error


def _text(path: Path) -> str:
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file it raises for no kind of name
        raise _invalid(f"{path}: there is no such file: name a CSV file")
    data = read_bytes(path, at_most=_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise _invalid(f"{path}: more than {_LIMIT_BYTES:,} bytes: split it into several manifests")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(f"{path}: this is no UTF-8 text: save it as CSV in UTF-8") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        wanted = ",".join(_COLUMNS)
        raise _invalid(f"{path}: line 1: missing column {', '.join(missing)}: the first line must be {wanted}")
    repeated = [name for name in _COLUMNS if header.count(name) > 1]
    if repeated:
        raise _invalid(f"{path}: line 1: column {repeated[0]} comes twice: keep one")


def _row(cells: Mapping[str, str], folder: Path) -> Row:
    if not cells:
        raise _invalid("another number of cells than the first line: quote cells that hold commas")
    person, split = cells["person"].strip(), cells["split"].strip()
    fault = _name_fault(person)
    if fault:
        raise _invalid(f"the person's name {fault}")
    if split not in _ROLES:
        raise _invalid(f"unknown split {split!r}: use one of {', '.join(Split)}")
    path = folder / cells["path"]
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file it raises for no kind of name
        raise _invalid(f"there is no file {cells['path']!r} in {folder}: paths are relative to the manifest's folder")
    return Row(path, person, Split(split), cells["condition"].strip())


def _invalid(message: str) -> ManifestError:
    return ManifestError(Code.MANIFEST_INVALID, message)


def _name_fault(person: str) -> str:
    """Why `person` cannot stand in a manifest; empty if it can."""
    if not person:
        return "is empty: give each person one"
    if not person.isprintable():
        return "holds characters that cannot be printed: rename the person"
    if person != person.strip():
        return "begins or ends with a space: rename the person"
    return ""


def _repeated_files(lines: Iterable[tuple[int, Row]]) -> list[str]:
    """Rows whose file, links followed, another row named before: an image in two splits would leak between them."""
    problems: list[str] = []
    first: dict[str, int] = {}
    for number, row in lines:
        earlier = first.setdefault(os.path.realpath(row.path), number)
        if earlier != number:
            problems.append(f"line {number}: the file of line {earlier} again: keep one (cloud: teacher and distil)")
    return problems


def _broken_person_rules(lines: Iterable[tuple[int, Row]]) -> list[str]:
    uses: dict[str, dict[Split, int]] = {}
    for number, row in lines:
        uses.setdefault(row.person, {}).setdefault(row.split, number)
    return [problem for person, first in uses.items() if (problem := _broken_rule(person, first))]


def _broken_rule(person: str, first: Mapping[Split, int]) -> str:
    """What is wrong with a person whose splits first appear on these lines; empty if nothing is."""
    split, *others = first
    for other in others:
        if _ROLES[other] != _ROLES[split]:
            return (
                f"person {person} is in {split} (line {first[split]}) and in {other} (line {first[other]}): "
                "cloud, strangers and devices must not share persons"
            )
    if _ROLES[split] == "device" and Split.ENROL not in first:
        return f"person {person} is in {split} (line {first[split]}) but not in enrol: add a row or use stranger"
    return ""


def _listing(problems: Sequence[str]) -> str:
    shown = list(problems[:_PROBLEMS_SHOWN])
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return "\n  ".join(shown)


def _written_path(path: Path, folder: Path) -> str:
    # The file's own name is kept even where it is a link: only its folder is resolved.
    absolute = path.parent.resolve() / path.name
    return (absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute).as_posix()


def _check_split(seed: int, enrol: int, stream: int, stranger_share: float) -> None:
    faults = {
        f"a seed is 0 or more: {seed}": seed < 0,
        f"a person on a device needs at least one image to enrol: {enrol}": enrol < 1,
        f"a stream has 0 or more images: {stream}": stream < 0,
        f"the share of strangers is at least 0 and below 1: {stranger_share}": not 0 <= stranger_share < 1,
    }
    for message, fault in faults.items():
        if fault:
            raise UsageError(message)


def _images(root: Path) -> dict[str, list[Path]]:
    """Images of each person's folder in `root`; persons and images in the order of their names."""
    if not os.path.isdir(root):  # noqa: PTH112 - unlike Path.is_dir it raises for no kind of name
        raise _invalid(f"{root}: there is no such folder: name one with a folder a person")
    try:
        folders = [entry for entry in _visible(root) if entry.is_dir()]
        files = {folder.name: [file for file in _visible(folder) if file.is_file()] for folder in folders}
    except OSError as error:
        raise storage_error(error, root, "read") from error
    return {person: [file for file in found if file.suffix.lower() in _SUFFIXES] for person, found in files.items()}


def _visible(folder: Path) -> list[Path]:
    return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=_natural)


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sorts `2.png` before `10.png`, and never leaves a tie."""
    pieces = re.split(r"([0-9]+)", path.name)  # text and numbers take turns, so like meets like
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], path.name


def _person_fault(person: str, found: int, needed: int) -> str:
    fault = _name_fault(person)
    if fault:
        return f"the name {person!a} {fault}"
    if found < needed:
        return f"person {person} has {found} of {needed} images needed (enrol {needed - 1}, recognise 1): add images"
    return ""


def _person_splits(persons: Sequence[str], seed: int, stranger_share: float) -> dict[str, Split]:
    """One split a person; `enrol` stands for all three of a device."""
    # Sorting raw draws instead of asking numpy for a permutation: only the raw draws are the same on every platform.
    draws = np.random.default_rng(seed).random(len(persons))
    order = np.argsort(draws, kind="stable")
    cloud = len(persons) // 2
    others = len(persons) - cloud
    strangers = min(max(int(stranger_share * others + 0.5), 1 if stranger_share else 0), others - 1)
    splits = [Split.CLOUD] * cloud + [Split.STRANGER] * strangers + [Split.ENROL] * (others - strangers)
    return {persons[index]: split for index, split in zip(order, splits, strict=True)}


def _uses(split: Split, images: int, enrol: int, stream: int) -> list[Split]:
    """What each image of a person of this split is for."""
    if split is not Split.ENROL:
        return [split] * images
    streamed = min(stream, images - enrol - 1)
    return [Split.ENROL] * enrol + [Split.STREAM] * streamed + [Split.PROBE] * (images - enrol - streamed)
