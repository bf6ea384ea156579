"""The occasion for what can wait: nobody at the door, the right time of the day, nothing that the platform objects to.

A platform objects through a file: whoever watches battery and temperature writes a few words there, "battery at 12 %",
and empties or removes it when all is well again. What the file says is shown to whoever asks what is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from device_sim.typed_json import Bounds
from tutelage.errors import UsageError

MAX_OBJECTION = 80
"""Characters shown of what the platform objects."""


@dataclass(frozen=True)
class Window:
    """Times that come again: every night, or Sundays from two to five.

    Raises:
        UsageError: it would never be open, or never closed.
    """

    start_s: float
    """When it opens, seconds after 1970-01-01T00:00Z; and `period_s` later, and so on."""
    length_s: float
    period_s: float = 86_400.0

    def __post_init__(self) -> None:
        """Refuse a window without an inside or an outside."""
        if not 0.0 < self.length_s < self.period_s:
            raise UsageError(f"a window is open for some of its {self.period_s:g} s, not for {self.length_s:g} s")

    def opens_in_s(self, now_s: float) -> float:
        """Seconds until it is open; 0 while it is."""
        since = (now_s - self.start_s) % self.period_s
        return 0.0 if since < self.length_s else self.period_s - since


@dataclass(frozen=True)
class Moment:
    """How a device finds itself, whatever waits."""

    now_s: float = 0.0
    """Seconds since 1970 in UTC."""
    idle_s: float = math.inf
    """Seconds since somebody was last recognised."""


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """When a device does what can wait."""

    min_idle_s: Annotated[float, Bounds(0.0)] = 0.0
    """Seconds for which nobody was recognised."""
    window: Window | None = None
    """When it may begin; at any time without one."""
    hold_file: str = ""
    """A file in which the platform says why not now, such as a low battery or heat; one that is missing or blank says
    that nothing is in the way. Empty: the platform is not asked."""

    def waits_for(self, what: str, moment: Moment) -> tuple[str, ...]:
        """What `moment` lacks for `what`; empty when the occasion is there."""
        lacks = []
        if moment.idle_s < self.min_idle_s:
            lacks.append(f"nobody recognised for {moment.idle_s:.0f} of {self.min_idle_s:g} s")
        if self.window is not None and (wait := self.window.opens_in_s(moment.now_s)):
            lacks.append(f"the {what} window opens in {wait:.0f} s")
        if self.hold_file and (objection := _objection(Path(self.hold_file))):
            lacks.append(f"the platform says: {objection}")
        return tuple(lacks)


def _objection(path: Path) -> str:
    """What the platform objects, on one line; empty where it objects nothing."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(4 * MAX_OBJECTION)
    except FileNotFoundError:
        return ""
    except OSError as error:  # whoever cannot be asked may object
        return f"nothing, its file cannot be read ({error.strerror})"
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in words)[:MAX_OBJECTION]
