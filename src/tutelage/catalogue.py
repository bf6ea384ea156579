"""The one catalogue of failures: for each code its exit status, its gRPC status and what another machine may read.

`tutelage.errors` has the classes that carry these codes and is where everybody imports both from; this module holds the
table alone. It needs no gRPC: statuses are known by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

__all__ = ["CATALOGUE", "Code", "Entry", "Status"]


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
    SAMPLE_UNKNOWN = "sample-unknown"
    PACKAGE_CORRUPT = "package-corrupt"
    PACKAGE_INCOMPLETE = "package-incomplete"
    PACKAGE_SIGNATURE = "package-signature"
    STUDENT_MISSING = "student-missing"
    SPACE_MISMATCH = "space-mismatch"
    STORAGE_FULL = "storage-full"
    STORAGE_FAILED = "storage-failed"
    STORE_CORRUPT = "store-corrupt"
    CHECKPOINT_CORRUPT = "checkpoint-corrupt"
    KEY_WRONG = "key-wrong"
    TRAINING_KILLED = "training-killed"
    TRAINING_BUDGET = "training-budget"
    TRAINING_DIVERGED = "training-diverged"
    TRAINING_STOPPED = "training-stopped"
    EXTRA_MISSING = "extra-missing"
    SETTING_INVALID = "setting-invalid"
    REQUEST_INVALID = "request-invalid"
    REQUEST_CONFLICT = "request-conflict"
    MESSAGE_TOO_LARGE = "message-too-large"
    DEADLINE_MISSING = "deadline-missing"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    CALL_CANCELLED = "call-cancelled"
    CALL_UNKNOWN = "call-unknown"
    CALLER_REFUSED = "caller-refused"
    SERVICE_UNAVAILABLE = "service-unavailable"
    SERVICE_FAILED = "service-failed"
    SERVICE_WRONG = "service-wrong"
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


class Status(StrEnum):
    """gRPC's status codes by their names, so that the catalogue needs no gRPC."""

    OK = "OK"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue."""

    exit_code: int
    """Exit status of the command line; unique, so a script can tell failures apart."""
    summary: str
    """One line for `docs/errors.md`."""
    status: Status
    """What a gRPC call ends with; never `OK`."""
    public: str | None = None
    """What a caller on another machine reads; None: the error's own message, which names only what that caller sent."""
    retryable: bool = False
    """Whether the same call may succeed later without any change by the caller."""

    def public_text(self, message: str) -> str:
        """What may leave this machine about an error with this `message`."""
        return message if self.public is None else self.public


_AGAIN_LATER = "try again later"
_ASK_OPERATOR = "ask the operator of the service, whose log has the reason"

CATALOGUE = MappingProxyType(
    {
        Code.USAGE: Entry(2, "The command was called with words it does not take.", Status.INVALID_ARGUMENT),
        Code.IMAGE_UNREADABLE: Entry(10, "A file is empty, truncated or not an image.", Status.INVALID_ARGUMENT),
        Code.IMAGE_TOO_LARGE: Entry(
            11, "An image's header claims more pixels than are accepted.", Status.INVALID_ARGUMENT
        ),
        Code.IMAGE_TOO_SMALL: Entry(
            12, "An image has fewer pixels a side than a capture needs.", Status.INVALID_ARGUMENT
        ),
        Code.IMAGE_WITHOUT_CONTENT: Entry(
            13, "An image is constant or holds values that are not numbers.", Status.INVALID_ARGUMENT
        ),
        Code.MANIFEST_INVALID: Entry(
            20, "A manifest breaks its own rules: columns, splits, files, persons.", Status.INVALID_ARGUMENT
        ),
        Code.DATA_INSUFFICIENT: Entry(
            21, "There are too few persons or images for what was asked.", Status.FAILED_PRECONDITION
        ),
        Code.PERSON_UNKNOWN: Entry(22, "A person was named who is not enrolled.", Status.NOT_FOUND),
        Code.SAMPLE_UNKNOWN: Entry(
            23, "A sample was named that a device does not have, or no longer.", Status.NOT_FOUND
        ),
        Code.PACKAGE_CORRUPT: Entry(
            30,
            "A student package's bytes do not match its manifest.",
            Status.INVALID_ARGUMENT,
            "the package's bytes do not match its manifest: send it again, whole",
        ),
        Code.PACKAGE_INCOMPLETE: Entry(
            31,
            "A student package lacks a member or a tensor.",
            Status.INVALID_ARGUMENT,
            "the package lacks a member or a tensor: make it again",
        ),
        Code.PACKAGE_SIGNATURE: Entry(
            32,
            "A student package is not signed by a trusted key.",
            Status.INVALID_ARGUMENT,
            "the package is not signed by a key that is trusted here: sign it with the release key",
        ),
        Code.STUDENT_MISSING: Entry(
            33,
            "A device has no other student to go back to.",
            Status.FAILED_PRECONDITION,
            "this device has no other student to go back to: release another version",
        ),
        Code.SPACE_MISMATCH: Entry(
            40, "Features of two embedding spaces were about to be compared.", Status.FAILED_PRECONDITION
        ),
        Code.STORAGE_FULL: Entry(
            50,
            "The disk is full; nothing was half-written.",
            Status.RESOURCE_EXHAUSTED,
            f"the service has no space left, nothing was half-written: {_AGAIN_LATER}",
            retryable=True,
        ),
        Code.STORAGE_FAILED: Entry(
            51,
            "A file could not be read or written.",
            Status.UNAVAILABLE,
            f"the service could not reach its storage: {_AGAIN_LATER}",
            retryable=True,
        ),
        Code.STORE_CORRUPT: Entry(
            52, "A device's store is damaged.", Status.DATA_LOSS, f"a store is damaged: {_ASK_OPERATOR}"
        ),
        Code.CHECKPOINT_CORRUPT: Entry(
            53,
            "A checkpoint is damaged or belongs to another training.",
            Status.DATA_LOSS,
            f"a checkpoint is damaged: {_ASK_OPERATOR}",
        ),
        Code.KEY_WRONG: Entry(
            54,
            "A sealed part cannot be opened with this key.",
            Status.FAILED_PRECONDITION,
            f"a sealed part cannot be opened with the service's key: {_ASK_OPERATOR}",
        ),
        Code.TRAINING_KILLED: Entry(
            60,
            "A training process ended before its work was done.",
            Status.UNAVAILABLE,
            f"the training's process ended early: {_AGAIN_LATER}",
            retryable=True,
        ),
        Code.TRAINING_BUDGET: Entry(
            61,
            "A training went over its budget of time or memory.",
            Status.RESOURCE_EXHAUSTED,
            f"the training went over its budget: {_AGAIN_LATER}, or ask for less",
            retryable=True,
        ),
        Code.TRAINING_DIVERGED: Entry(
            62,
            "A training's loss was no longer a number.",
            Status.FAILED_PRECONDITION,
            "the training's loss was no longer a number: lower the learning rate or check the data",
        ),
        Code.TRAINING_STOPPED: Entry(
            63,
            "A training was told to stop; its checkpoint is kept.",
            Status.CANCELLED,
            "the training was told to stop",
        ),
        Code.EXTRA_MISSING: Entry(
            70,
            "An optional part is needed that is not installed.",
            Status.UNIMPLEMENTED,
            f"the service lacks an optional part that this needs: {_ASK_OPERATOR}",
        ),
        Code.SETTING_INVALID: Entry(
            78,  # EX_CONFIG of sysexits.h
            "A setting of the environment, or a file that one names, is missing or cannot be used.",
            Status.INTERNAL,
            f"the service is not set up for this: {_ASK_OPERATOR}",
        ),
        Code.REQUEST_INVALID: Entry(
            80, "A request cannot be decoded or breaks the rules of its fields.", Status.INVALID_ARGUMENT
        ),
        Code.REQUEST_CONFLICT: Entry(89, "A name or key was given before, for something else.", Status.ALREADY_EXISTS),
        Code.MESSAGE_TOO_LARGE: Entry(81, "A message has more bytes than are accepted.", Status.RESOURCE_EXHAUSTED),
        Code.DEADLINE_MISSING: Entry(
            82,
            "A call to a service was made without a deadline.",
            Status.INTERNAL,
            f"the service called another without a deadline: {_ASK_OPERATOR}",
        ),
        Code.DEADLINE_EXCEEDED: Entry(
            83,
            "A call's deadline passed before its answer came.",
            Status.DEADLINE_EXCEEDED,
            f"the deadline passed before the answer was there: {_AGAIN_LATER}, or allow more time",
            retryable=True,
        ),
        Code.CALL_CANCELLED: Entry(
            84, "A call was cancelled by its caller or by the service.", Status.CANCELLED, "the call was cancelled"
        ),
        Code.CALL_UNKNOWN: Entry(85, "A service does not have the call that was made.", Status.UNIMPLEMENTED),
        Code.CALLER_REFUSED: Entry(86, "A caller may not make the call it made.", Status.PERMISSION_DENIED),
        Code.SERVICE_UNAVAILABLE: Entry(
            87,
            "A service, or what it depends on, cannot be reached or takes no calls.",
            Status.UNAVAILABLE,
            f"the service, or what it depends on, takes no calls at present: {_AGAIN_LATER}",
            retryable=True,
        ),
        Code.SERVICE_FAILED: Entry(
            88,
            "A service failed in a way it did not foresee.",
            Status.INTERNAL,
            f"the service failed: {_ASK_OPERATOR}",
        ),
        Code.SERVICE_WRONG: Entry(
            97, "A service answers, but otherwise than a check of the whole expects.", Status.FAILED_PRECONDITION
        ),
        Code.QUEUE_UNAVAILABLE: Entry(
            100,
            "The queue's server did not answer in time.",
            Status.UNAVAILABLE,
            f"the service cannot reach its queue: {_AGAIN_LATER}",
            retryable=True,
        ),
        Code.QUEUE_REFUSED: Entry(
            101,
            "The queue's server refused a command: rights, memory or foreign data.",
            Status.INTERNAL,
            f"the service may not use its queue: {_ASK_OPERATOR}",
        ),
        Code.ENTRY_INVALID: Entry(
            102, "A queue entry is not a JSON mapping with text as its context.", Status.INVALID_ARGUMENT
        ),
        Code.ENTRY_TOO_LARGE: Entry(103, "A queue entry is larger than a queue carries.", Status.INVALID_ARGUMENT),
        Code.ENTRY_UNKNOWN: Entry(
            104, "A queue entry was named that the queue does not know, or no longer.", Status.NOT_FOUND
        ),
        Code.ENTRY_CANCELLED: Entry(105, "A queue entry was cancelled while a worker had it.", Status.CANCELLED),
        Code.CLAIM_LOST: Entry(
            106, "A worker no longer holds the entry it claimed.", Status.ABORTED, "somebody else took the work over"
        ),
        Code.OBJECTS_UNAVAILABLE: Entry(
            90,
            "The object store did not answer, or not in time.",
            Status.UNAVAILABLE,
            f"the service cannot reach its objects: {_AGAIN_LATER}",
            retryable=True,
        ),
        Code.OBJECTS_REFUSED: Entry(
            91,
            "The object store refused: credentials, rights or a missing bucket.",
            Status.INTERNAL,
            f"the service may not use its objects: {_ASK_OPERATOR}",
        ),
        Code.OBJECT_MISSING: Entry(92, "An object is not there, or its time has run out.", Status.NOT_FOUND),
        Code.OBJECT_CORRUPT: Entry(
            93,
            "An object's bytes do not match its digest.",
            Status.DATA_LOSS,
            f"an object is damaged: {_ASK_OPERATOR}",
        ),
        Code.OBJECT_CONFLICT: Entry(
            94, "An object exists already, or was changed by somebody else meanwhile.", Status.ABORTED
        ),
        Code.OBJECT_RANGE: Entry(
            95, "A part of an object was asked for that lies beyond its end.", Status.OUT_OF_RANGE
        ),
        Code.OBJECT_KEY: Entry(96, "A key is not one that an object can have.", Status.INVALID_ARGUMENT),
    }
)
