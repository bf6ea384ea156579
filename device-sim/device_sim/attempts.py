"""How attempts end, counted live: before and since the last swap, for the watch window."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from device_sim.records import DecisionRecord
from device_sim.watch import Tally, WatchRules, WatchVerdict, judge_watch
from tutelage.biometrics.matching import Decision


@dataclass
class AttemptCounter:
    """Follows the attempts at one sensor; not safe for several threads."""

    retries: int
    """Failures after which an attempt is over."""
    window: int = 100
    """Attempts before a swap that are remembered."""
    _open: str = field(default="", init=False)
    _captures: int = field(default=0, init=False)
    _ended: deque[tuple[int, bool]] = field(init=False)
    _before: Tally = field(default_factory=Tally, init=False)
    _since: Tally | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Start with nothing behind."""
        self._ended = deque(maxlen=self.window)

    def add(self, attempt: str, *, accepted: bool) -> bool:
        """Count a capture; whether an attempt ended with it.

        An attempt ends with an acceptance, with `retries` failures, or, unaccepted, when another one begins.
        """
        left = attempt != self._open and self._captures > 0
        if left:
            self._end(accepted=False)
        self._open = attempt
        self._captures += 1
        if accepted or self._captures >= self.retries:
            self._end(accepted=accepted)
            return True
        return left

    def _end(self, *, accepted: bool) -> None:
        self._ended.append((self._captures, accepted))
        if self._since is not None:
            self._since = self._since.after(self._captures, accepted=accepted)
        self._captures = 0

    def swapped(self) -> None:
        """A new student took over: what was counted so far is the measure for it."""
        self._before = Tally()
        for captures, accepted in self._ended:
            self._before = self._before.after(captures, accepted=accepted)
        self._since = Tally()

    def verdict(self, rules: WatchRules) -> WatchVerdict | None:
        """What the watch says now; None where nothing is watched."""
        return None if self._since is None else judge_watch(self._before, self._since, rules)

    def settle(self) -> None:
        """Stop watching."""
        self._since = None

    def reverted(self) -> None:
        """Stop watching and forget what was counted since the swap: it must not be the measure for the next one."""
        if self._since is not None:
            for _ in range(min(self._since.attempts, len(self._ended))):
                self._ended.pop()
        self._captures = 0
        self.settle()

    @staticmethod
    def replayed(retries: int, decisions: Sequence[DecisionRecord], watched: str) -> AttemptCounter:
        """A counter that has met `decisions`, oldest first.

        `watched` is the generation whose watch was not over, so that a restart does not end it; empty if none was.
        """
        counter = AttemptCounter(retries)
        for decision in decisions:
            if decision.generation == watched and counter._since is None:
                counter.swapped()
            counter.add(decision.observation.attempt, accepted=decision.observation.decision is Decision.ACCEPT)
        if watched and counter._since is None:
            counter.swapped()
        return counter
