"""The one catalogue of what can go wrong.

Every failure a caller may meet is a `TutelageError` with a `Code`. The code decides the exit status of the command
line (`CATALOGUE`), so that scripts can tell a bad image from a full disk. A message names what was wrong and what to
do about it; it never carries pixels, features or keys.

    TutelageError
    ├── UsageError           the command's own words are off
    ├── InputError           what was handed in cannot be used
    │   ├── CaptureError         one image
    │   ├── ManifestError        a data set's description
    │   └── PersonError          a person nobody enrolled
    ├── PackageError         a student package that must not be trusted
    ├── SpaceMismatchError   features of two embedding spaces met
    ├── StorageError         the disk, the store or a key
    ├── TrainingError        a training that did not end well
    ├── QueueError           a queue, or an entry of one
    ├── ObjectError          an object store, or an object in one
    └── MissingExtraError    an optional part is not installed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Code(StrEnum):
    """Names of all failures; stable, used in reports and as the key of `CATALOGUE`."""

    USAGE = "usage"
    IMAGE_UNREADABLE = "image-unreadable"
    IMAGE_TOO_LARGE = "image-too-large"
    IMAGE_TOO_SMALL = "image-too-small"
    IMAGE_WITHOUT_CONTENT = "image-without-content"
    MANIFEST_INVALID = "manifest-invalid"
    DATA_INSUFFICIENT = "data-insufficient"
    PERSON_UNKNOWN = "person-unknown"
    PACKAGE_CORRUPT = "package-corrupt"
    PACKAGE_INCOMPLETE = "package-incomplete"
    PACKAGE_SIGNATURE = "package-signature"
    SPACE_MISMATCH = "space-mismatch"
    STORAGE_FULL = "storage-full"
    STORAGE_FAILED = "storage-failed"
    STORE_CORRUPT = "store-corrupt"
    CHECKPOINT_CORRUPT = "checkpoint-corrupt"
    KEY_WRONG = "key-wrong"
    TRAINING_KILLED = "training-killed"
    TRAINING_BUDGET = "training-budget"
    TRAINING_DIVERGED = "training-diverged"
    EXTRA_MISSING = "extra-missing"
    QUEUE_UNAVAILABLE = "queue-unavailable"
    QUEUE_REFUSED = "queue-refused"
    ENTRY_INVALID = "entry-invalid"
    ENTRY_TOO_LARGE = "entry-too-large"
    ENTRY_UNKNOWN = "entry-unknown"
    ENTRY_CANCELLED = "entry-cancelled"
    CLAIM_LOST = "claim-lost"
    OBJECTS_UNAVAILABLE = "objects-unavailable"
    OBJECTS_REFUSED = "objects-refused"
    OBJECT_MISSING = "object-missing"
    OBJECT_CORRUPT = "object-corrupt"
    OBJECT_CONFLICT = "object-conflict"
    OBJECT_RANGE = "object-range"
    OBJECT_KEY = "object-key"


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue."""

    exit_code: int
    """Exit status of the command line; unique, so a script can tell failures apart."""
    summary: str
    """One line for `docs/errors.md`."""
    retryable: bool = False
    """Whether the same call may succeed later without any change by the caller."""


CATALOGUE = MappingProxyType(
    {
        Code.USAGE: Entry(2, "The command was called with words it does not take."),
        Code.IMAGE_UNREADABLE: Entry(10, "A file is empty, truncated or not an image."),
        Code.IMAGE_TOO_LARGE: Entry(11, "An image's header claims more pixels than are accepted."),
        Code.IMAGE_TOO_SMALL: Entry(12, "An image has fewer pixels a side than a capture needs."),
        Code.IMAGE_WITHOUT_CONTENT: Entry(13, "An image is constant or holds values that are not numbers."),
        Code.MANIFEST_INVALID: Entry(20, "A manifest breaks its own rules: columns, splits, files, persons."),
        Code.DATA_INSUFFICIENT: Entry(21, "There are too few persons or images for what was asked."),
        Code.PERSON_UNKNOWN: Entry(22, "A person was named who is not enrolled."),
        Code.PACKAGE_CORRUPT: Entry(30, "A student package's bytes do not match its manifest."),
        Code.PACKAGE_INCOMPLETE: Entry(31, "A student package lacks a member or a tensor."),
        Code.PACKAGE_SIGNATURE: Entry(32, "A student package is not signed by a trusted key."),
        Code.SPACE_MISMATCH: Entry(40, "Features of two embedding spaces were about to be compared."),
        Code.STORAGE_FULL: Entry(50, "The disk is full; nothing was half-written.", retryable=True),
        Code.STORAGE_FAILED: Entry(51, "A file could not be read or written.", retryable=True),
        Code.STORE_CORRUPT: Entry(52, "A device's store is damaged."),
        Code.CHECKPOINT_CORRUPT: Entry(53, "A checkpoint is damaged or belongs to another training."),
        Code.KEY_WRONG: Entry(54, "A sealed part cannot be opened with this key."),
        Code.TRAINING_KILLED: Entry(60, "A training process ended before its work was done.", retryable=True),
        Code.TRAINING_BUDGET: Entry(61, "A training went over its budget of time or memory.", retryable=True),
        Code.TRAINING_DIVERGED: Entry(62, "A training's loss was no longer a number."),
        Code.EXTRA_MISSING: Entry(70, "An optional part is needed that is not installed."),
        Code.QUEUE_UNAVAILABLE: Entry(80, "The queue's server did not answer in time.", retryable=True),
        Code.QUEUE_REFUSED: Entry(81, "The queue's server refused a command: rights, memory or foreign data."),
        Code.ENTRY_INVALID: Entry(82, "A queue entry is not a JSON mapping with text as its context."),
        Code.ENTRY_TOO_LARGE: Entry(83, "A queue entry is larger than a queue carries."),
        Code.ENTRY_UNKNOWN: Entry(84, "A queue entry was named that the queue does not know, or no longer."),
        Code.ENTRY_CANCELLED: Entry(85, "A queue entry was cancelled while a worker had it."),
        Code.CLAIM_LOST: Entry(86, "A worker no longer holds the entry it claimed."),
        Code.OBJECTS_UNAVAILABLE: Entry(90, "The object store did not answer, or not in time.", retryable=True),
        Code.OBJECTS_REFUSED: Entry(91, "The object store refused: credentials, rights or a missing bucket."),
        Code.OBJECT_MISSING: Entry(92, "An object is not there, or its time has run out."),
        Code.OBJECT_CORRUPT: Entry(93, "An object's bytes do not match its digest."),
        Code.OBJECT_CONFLICT: Entry(94, "An object exists already, or was changed by somebody else meanwhile."),
        Code.OBJECT_RANGE: Entry(95, "A part of an object was asked for that lies beyond its end."),
        Code.OBJECT_KEY: Entry(96, "A key is not one that an object can have."),
    }
)


class TutelageError(Exception):
    """Base of all failures; `message` is fit for a person to read and act on."""

    def __init__(self, code: Code, message: str) -> None:
        """Keep `code` and `message`; `str()` gives the message alone."""
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[Callable[..., TutelageError], tuple[type[TutelageError], Code, str]]:
        """Errors cross between processes of one program whatever their own constructors take."""
        return _remade, (type(self), self.code, self.message)

    @property
    def exit_code(self) -> int:
        """Exit status the command line ends with."""
        return CATALOGUE[self.code].exit_code


def _remade(kind: type[TutelageError], code: Code, message: str) -> TutelageError:
    error = kind.__new__(kind)
    TutelageError.__init__(error, code, message)
    return error


class UsageError(TutelageError):
    """The command line was called with words it does not take."""

    def __init__(self, message: str) -> None:
        """Code is always `usage`."""
        super().__init__(Code.USAGE, message)


class InputError(TutelageError):
    """Something handed in cannot be used; codes `image-*`, `manifest-invalid`, `data-insufficient`."""


class CaptureError(InputError):
    """One image cannot become a capture; codes `image-*`."""


class ManifestError(InputError):
    """A data set's description breaks its rules; codes `manifest-invalid`, `data-insufficient`."""


class PersonError(InputError):
    """A person was named who is not enrolled."""

    def __init__(self, person: str) -> None:
        """Name the `person` as the caller did; code is always `person-unknown`."""
        super().__init__(Code.PERSON_UNKNOWN, f"person {person!r} is not enrolled: enrol first, or check the name")


class PackageError(TutelageError):
    """A student package that must not be trusted; codes `package-*`."""


class SpaceMismatchError(TutelageError):
    """Features of two embedding spaces met; they are never comparable."""

    def __init__(self, left: str, right: str) -> None:
        """Name both spaces: `left` and `right` are space ids."""
        super().__init__(
            Code.SPACE_MISMATCH,
            f"features of space {left} cannot be compared with features of space {right}: "
            "extract both with the same model",
        )


class StorageError(TutelageError):
    """The disk, a store, a checkpoint or a key failed; codes `storage-*`, `store-*`, `checkpoint-*`, `key-wrong`."""


class TrainingError(TutelageError):
    """A training that did not end well; codes `training-*`. The running student is untouched."""


class QueueError(TutelageError):
    """A queue did not answer, or an entry is not what it should be; codes `queue-*`, `entry-*`, `claim-lost`."""


class ObjectError(TutelageError):
    """An object store did not answer, or an object is not what it should be; codes `objects-*`, `object-*`."""


class MissingExtraError(TutelageError):
    """An optional part is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        """Name the `extra` of the distribution `tutelage` and the `purpose` it serves."""
        super().__init__(Code.EXTRA_MISSING, f"{purpose} needs an optional part: pip install 'tutelage[{extra}]'")
