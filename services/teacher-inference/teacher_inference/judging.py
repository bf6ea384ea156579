"""Judging: attempts of callers who come at the same moment are compared with their site in one go.

A joined batch answers many callers at once, and what it takes to begin a comparison is many times what one attempt more
adds to it. So nobody is judged before all others have asked who can in this turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial

from teacher_inference.extractions import joined
from teacher_inference.galleries import SiteGallery
from teacher_inference.threads import in_thread
from tutelage.labelling import Abstention, Extraction, Judge, Judged

__all__ = ["Judging"]

FEW_PERSONS = 1000
"""One attempt is compared with so many in a fraction of a millisecond: less than it takes to hand it to a thread."""


@dataclass(eq=False)
class _Round:
    """Attempts that are judged together."""

    site: SiteGallery
    seen: list[Extraction] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    judged: asyncio.Task[list[Judged]] = field(init=False)


class Judging:
    """Lets one judge name persons or abstain; for one event loop."""

    def __init__(self, judge: Judge, threads: Executor) -> None:
        """Ask `judge`, for more than a few comparisons in `threads`."""
        self._judge, self._threads = judge, threads
        self._open: dict[int, _Round] = {}
        """By the identity of the gallery."""

    async def judged(self, seen: Extraction, sizes: Sequence[int], site: SiteGallery) -> list[Judged]:
        """See `Judge.judge`; nobody is named where persons of the `site` cannot be compared.

        Raises:
            SpaceMismatchError: the gallery lies in another space than what was `seen`.
        """
        mine = self._open.get(id(site))
        if mine is None:
            mine = self._open[id(site)] = _Round(site)
            mine.judged = asyncio.create_task(self._judge_all(mine))
        first = len(mine.sizes)
        mine.seen.append(seen)
        mine.sizes += sizes
        return (await asyncio.shield(mine.judged))[first : first + len(sizes)]

    async def _judge_all(self, asked: _Round) -> list[Judged]:
        del self._open[id(asked.site)]
        seen = joined(asked.seen, self._judge.space)
        judge = partial(_judged, self._judge, seen, asked.sizes, asked.site)
        at_once = len(asked.sizes) == 1 and len(asked.site.names) <= FEW_PERSONS
        return judge() if at_once else await in_thread(self._threads, judge)


def _judged(judge: Judge, seen: Extraction, sizes: Sequence[int], site: SiteGallery) -> list[Judged]:
    judged = judge.judge(seen, sizes, site.gallery)
    return [_withheld(answer, site.others) for answer in judged] if site.others else judged


def _withheld(judged: Judged, others: int) -> Judged:
    """No person, where `others` could not be compared; an attempt that showed nothing is answered as it was."""
    if judged.abstention in (Abstention.NO_CAPTURE, Abstention.NOT_USABLE):
        return judged
    who = "1 person" if others == 1 else f"{others} persons"
    reason = f"{who} of the site cannot be compared, enrolled with another teacher: enrol again or remove them"
    answer = replace(judged.answer, person=None, confidence=0.0, reason=reason)
    return Judged(answer, Abstention.OTHER_TEACHER)
