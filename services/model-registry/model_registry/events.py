"""Events of models: what the distiller tells the registry through the queue `model.events`.

One entry says that a student's package is in the object store:

    {"event": "student-distilled", "digest": ..., "file_digest": ..., "size_bytes": ..., "data_set": ..., "job_id": ...}

The registry makes a version of it, however often the entry is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from model_registry.registry import Registry
from model_registry.uploads import Upload
from model_registry.versions import Lineage
from tutelage.errors import CATALOGUE, TutelageError
from tutelage.queue_entries import Claim, Permanent, Temporary

__all__ = ["QUEUE", "ModelEvents"]

QUEUE = "model.events"
"""Name of the queue."""

STUDENT_DISTILLED = "student-distilled"

AGAIN_AFTER = timedelta(seconds=5)
"""Before an event is tried again whose failure may pass."""


class ModelEvents:
    """The handler of the queue `model.events`."""

    def __init__(self, registry: Registry) -> None:
        """Make versions in `registry`."""
        self._registry = registry

    async def handle(self, claim: Claim) -> None:
        """Make the version that an entry tells of.

        Raises:
            Permanent: The entry, or the package, is not what it should be.
            Temporary: The object store or the index is away.
        """
        upload, lineage = _told(claim.entry.body)
        try:
            await self._registry.adopt(upload, lineage)
        except TutelageError as error:
            if CATALOGUE[error.code].retryable:
                raise Temporary(error.message, AGAIN_AFTER) from error
            raise Permanent(f"{error.code}: {error.message}") from error


def _told(body: Mapping[str, Any]) -> tuple[Upload, Lineage]:
    if body.get("event") != STUDENT_DISTILLED:
        raise Permanent(f"unknown event {str(body.get('event'))[:80]!r}: this registry is older than the distiller")
    try:
        upload = Upload(str(body["digest"]), str(body["file_digest"]), int(body["size_bytes"]))
    except (LookupError, ValueError, TypeError) as error:
        raise Permanent(f"an event lacks or garbles a field ({error})") from error
    return upload, Lineage(body.get("data_set"), body.get("job_id"))
