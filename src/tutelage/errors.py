"""What can go wrong, as classes; their codes come from the one catalogue.

Every failure a caller may meet is a `TutelageError` with a `Code`. The code decides the exit status of the command
line (`CATALOGUE`), so that scripts can tell a bad image from a full disk. A message names what was wrong and what to
do about it; it never carries pixels, features or keys. Across gRPC a failure travels as the status and the text of its
entry (`tutelage.grpc_errors` does that): a message that may name what only this machine should know stays here.

    TutelageError
    ├── UsageError           the command's own words are off
    ├── InputError           what was handed in cannot be used
    │   ├── CaptureError         one image
    │   ├── ManifestError        a data set's description
    │   ├── RequestError         one request to a service
    │   └── PersonError          a person nobody enrolled
    ├── PackageError         a student package that must not be trusted
    ├── SpaceMismatchError   features of two embedding spaces met
    ├── StorageError         the disk, the store or a key
    ├── TrainingError        a training that did not end well
    ├── SettingsError        the environment's settings, or the files they name
    ├── ServiceError         a call to a service, or the way to it
    ├── QueueError           a queue, or an entry of one
    ├── ObjectError          an object store, or an object in one
    └── MissingExtraError    an optional part is not installed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tutelage.catalogue import CATALOGUE, Code, Entry, Status

__all__ = [
    "CATALOGUE",
    "CaptureError",
    "Code",
    "Entry",
    "InputError",
    "ManifestError",
    "MissingExtraError",
    "ObjectError",
    "PackageError",
    "PersonError",
    "QueueError",
    "RequestError",
    "ServiceError",
    "SettingsError",
    "SpaceMismatchError",
    "Status",
    "StorageError",
    "TrainingError",
    "TutelageError",
    "UsageError",
    "error_for",
]


class TutelageError(Exception):
    """Base of all failures; `message` is fit for a person to read and act on."""

    facts: Mapping[str, str] = MappingProxyType({})
    """What a program needs to go on, beside the code: it travels in the ErrorInfo's metadata, and is never secret."""

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


def error_for(code: Code, message: str) -> TutelageError:
    """The error of the class that belongs to `code`, as `raise` at its origin would have made it.

    For failures that come from another machine: whoever catches `PersonError` need not know where it was raised.
    """
    family = code.value.split("-", maxsplit=1)[0]
    return _remade(_KINDS[family], code, message)


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
    """Something handed in cannot be used; codes `image-*`, `manifest-invalid`, `data-*`, `person-*`, `sample-*`."""


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
    """A student package that must not be trusted, or a missing one; codes `package-*`, `student-missing`."""


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


class SettingsError(TutelageError):
    """A setting, or a file it names, is missing or cannot be used; nothing was started."""

    def __init__(self, message: str) -> None:
        """Code is always `setting-invalid`; `message` names the variable and its value."""
        super().__init__(Code.SETTING_INVALID, message)


class RequestError(InputError):
    """A request cannot be decoded, breaks the rules of its fields, or contradicts an earlier one; codes `request-*`."""

    def __init__(self, message: str, code: Code = Code.REQUEST_INVALID) -> None:
        """Code is `request-invalid` or `request-conflict`; `message` names the field, and reaches the caller."""
        super().__init__(code, message)


class ServiceError(TutelageError):
    """A call to a service did not end well; codes `service-*`, `deadline-*`, `call-*`, `caller-*`, `message-*`."""


# By the first word of a code.
_KINDS: dict[str, type[TutelageError]] = {
    "manifest": ManifestError,
    "data": InputError,
    "usage": UsageError,
    "image": CaptureError,
    "person": PersonError,
    "sample": InputError,
    "package": PackageError,
    "student": PackageError,
    "space": SpaceMismatchError,
    "storage": StorageError,
    "store": StorageError,
    "checkpoint": StorageError,
    "key": StorageError,
    "training": TrainingError,
    "extra": MissingExtraError,
    "setting": SettingsError,
    "request": RequestError,
    **dict.fromkeys(("queue", "entry", "claim"), QueueError),
    **dict.fromkeys(("object", "objects"), ObjectError),
    **dict.fromkeys(("service", "deadline", "call", "caller", "message"), ServiceError),
}
