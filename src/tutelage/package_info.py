"""What the maker of a student package says of it: name, version, architecture, origin.

The same rules hold when a package is built and when one is read, so that nothing can be written that no reader takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tutelage.errors import UsageError

_TEXTS = {
    "name": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    "version": re.compile(r"v(0|[1-9][0-9]{0,8})(\+[1-9][0-9]{0,8})?"),
    "readout": re.compile(r"exit[1-4]|fused"),
    "teacher_space": re.compile(r".{1,200}"),
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class PackageInfo:
    """What the maker of a package says of it; all else in the manifest is computed."""

    name: str
    """At most 64 letters, digits, dots, dashes and underscores."""
    version: str
    """`v3`, or `v3+7` for the seventh local generation of version 3."""
    student: Mapping[str, Any]
    """Architecture, as the network's code writes and reads it."""
    readout: str
    """What recognises: `exit1` to `exit4`, or `fused`."""
    teacher_space: str
    """Id of the space of the teacher it was distilled from."""
    created: str
    """ISO 8601 time of making; a parameter, so that the same inputs give the same bytes."""
    parent: str | None = None
    """Digest of the package it was trained from; `None` for a first one."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Summary of the training, anything JSON can carry."""

    def __post_init__(self) -> None:
        """Refuse what a reader of the package would refuse."""
        for name, pattern in _TEXTS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise UsageError(f"a package's {name} must match {pattern.pattern}: {value!r}")
        if not _is_time(self.created):
            raise UsageError(f"a package's time of making must be in ISO 8601: {self.created!r}")
        if self.parent is not None and not (isinstance(self.parent, str) and _DIGEST.fullmatch(self.parent)):
            raise UsageError(
                f"a package's parent is named by its digest, sha256:<64 hexadecimal digits>: {self.parent!r}"
            )
        if not isinstance(self.student, Mapping) or not self.student or not isinstance(self.training, Mapping):
            raise UsageError("a package needs an architecture and a training summary, by field")


def _is_time(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(datetime.fromisoformat(text))
    except ValueError:
        return False
