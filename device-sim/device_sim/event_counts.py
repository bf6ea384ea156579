"""How many events of each kind ever happened on a device: counts that only grow, although old events make room.

They are kept in one small JSON file, `{"last": id of the latest event counted, "counts": {kind: count}}`, and brought
up to date from the store whenever somebody asks.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_sim.store import Store
from device_sim.typed_json import plain, typed
from tutelage.errors import StorageError, UsageError
from tutelage.files import atomic_write, read_bytes

__all__ = ["EventCounts"]

_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class _Counted:
    last: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


class EventCounts:
    """Counts of one store's events, in a file; safe for several threads."""

    def __init__(self, store: Store, path: Path) -> None:
        """Go on from what the file at `path` counted; without a readable one all events still kept are counted."""
        self._store, self._path, self._counted = store, path, _read(path)
        self._lock = threading.Lock()

    def now(self) -> Mapping[str, int]:
        """The counts by kind, kinds without events left out.

        Raises:
            StorageError: The store cannot be read or the file not be written.
        """
        with self._lock:
            events = self._store.events(after=self._counted.last)
            if events:
                counts = Counter(self._counted.counts)
                counts.update(event.kind.value for event in events)
                counted = _Counted(events[-1].id, dict(counts))
                atomic_write(self._path, json.dumps(plain(counted)).encode())
                self._counted = counted
            return self._counted.counts


def _read(path: Path) -> _Counted:
    try:
        found: _Counted = typed(_Counted, json.loads(read_bytes(path, at_most=_MAX_BYTES)), "the counts of events")
    except (StorageError, UsageError, ValueError):
        return _Counted()
    return found
