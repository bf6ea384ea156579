"""Labels: what the service says about attempts, whoever runs the teacher and wherever galleries lie.

Every answer goes one way, at once or from a queue: the backend extracts, the site's gallery is looked at, one judge
names or abstains (`tutelage.labelling.Judge`). Where persons of a site cannot be compared, because they were enrolled
with another teacher, nobody is named: the person on the captures may be one of them, and the nearest of the others
would be a wrong label. The reason says so, and what was weighed is given as evidence.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from teacher_inference.backends import Backend
from teacher_inference.deadlines import within
from teacher_inference.extractions import joined
from teacher_inference.galleries import Galleries
from teacher_inference.judging import Judging
from teacher_inference.request_rules import check_decodable, places
from teacher_inference.teacher_metrics import TeacherMetrics
from teacher_inference.threads import in_thread
from tutelage.errors import Code, InputError
from tutelage.labelling import AbstentionPolicy, Extraction, Judge, Judged

__all__ = ["Enrolment", "Labels"]

PART_CAPTURES = 128
"""Captures that the backend is asked about at once: larger batches are no faster, and others get their turn."""

PART_BYTES = 8 * 1024 * 1024
"""Bytes of them: half of what a message may have."""

BACKEND_WITHIN_S = 60.0
"""Longest that the backend gets for one part, also where nobody waits for the whole: one that hangs is found out."""


@dataclass(frozen=True)
class Enrolment:
    """What an enrolment came to."""

    references: int
    """Captures whose features are now kept."""
    unusable: Sequence[tuple[int, str]]
    """Place and reason of each capture that the teacher could not use."""
    space: str
    """Id of the teacher's space."""


class Labels:
    """Enrols, removes and names persons; for one event loop."""

    def __init__(
        self,
        backend: Backend,
        galleries: Galleries,
        policy: AbstentionPolicy,
        metrics: TeacherMetrics,
        threads: Executor,
    ) -> None:
        """Ask `backend`, look into `galleries`, judge by `policy`; what computes does so in `threads`."""
        self.backend, self.galleries, self.policy = backend, galleries, policy
        self._metrics, self._threads = metrics, threads
        self._judge = Judge(policy, backend.space)
        self._judging = Judging(self._judge, threads)

    async def enrol(self, site: str, person: str, captures: Sequence[bytes], *, timeout: float) -> Enrolment:
        """Make `person` known at `site` by what the teacher sees in `captures`; the former features are replaced.

        Raises:
            InputError: `data-insufficient`, no capture is usable; nothing has changed.
            CaptureError: a capture cannot be read; nothing has changed.
            TutelageError: as `Backend.extract` and `Galleries.enrol`; `deadline-exceeded` after `timeout` seconds.
        """
        async with within(timeout):
            seen = await self._seen(captures, [f"captures[{n}]" for n in range(len(captures))], timeout)
            unusable = [(int(row), seen.reasons[row]) for row in np.flatnonzero(~seen.usable)]
            if len(unusable) == len(captures):
                raise InputError(
                    Code.DATA_INSUFFICIENT, f"no reference capture is usable ({unusable[-1][1]}): take another"
                )
            features = seen.features[np.flatnonzero(seen.usable)]
            await self.galleries.enrol(site, person, features)
            return Enrolment(len(features), unusable, self.backend.space)

    async def remove(self, site: str, person: str, *, timeout: float) -> int:
        """Forget `person` at `site`; how many references that were.

        Raises:
            TutelageError: as `Galleries.remove`; `deadline-exceeded` after `timeout` seconds.
        """
        async with within(timeout):
            return await self.galleries.remove(site, person)

    async def label(self, site: str, attempts: Sequence[Sequence[bytes]], *, timeout: float) -> list[Judged]:
        """One answer an attempt, in order.

        Raises:
            CaptureError: a capture cannot be read.
            TutelageError: as `Backend.extract` and `Galleries.at`; `deadline-exceeded` after `timeout` seconds.
        """
        async with within(timeout):
            looked_at = [self._judge.looked_at(attempt) for attempt in attempts]
            captures = [capture for attempt in looked_at for capture in attempt]
            await self._check_unseen(attempts)
            names = places(attempts) if self.policy.group else [_last(n, a) for n, a in enumerate(attempts)]
            seen = await self._seen(captures, names, timeout)
            site_gallery = await self.galleries.at(site)
            judged = await self._judging.judged(seen, [len(attempt) for attempt in looked_at], site_gallery)
        self._metrics.answered(judged)
        return judged

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        """What the teacher sees in `captures`.

        Raises:
            CaptureError: a capture cannot be read.
            TutelageError: as `Backend.extract`; `deadline-exceeded` after `timeout` seconds.
        """
        async with within(timeout):
            return await self._seen(captures, [f"captures[{n}]" for n in range(len(captures))], timeout)

    async def _check_unseen(self, attempts: Sequence[Sequence[bytes]]) -> None:
        """Where the last capture of an attempt is judged alone, the others have to be captures all the same."""
        if self.policy.group:
            return
        unseen = [(f"attempts[{a}].captures[{c}]", x) for a, of in enumerate(attempts) for c, x in enumerate(of[:-1])]
        await in_thread(
            self._threads, check_decodable, [capture for _, capture in unseen], [name for name, _ in unseen]
        )

    async def _seen(self, captures: Sequence[bytes], names: Sequence[str], timeout: float) -> Extraction:
        """What the teacher sees in all `captures`, `names` being what they are called in the request."""
        until = time.monotonic() + timeout
        parts = []
        for part in _parts(captures):
            with self._metrics.extracting(len(part)):
                left = min(until - time.monotonic(), BACKEND_WITHIN_S)
                parts.append(await self.backend.extract(part, timeout=max(left, 0.001)))
        seen = joined(parts, self.backend.space)
        doubtful = np.flatnonzero(~seen.usable).tolist()
        if doubtful:
            await in_thread(
                self._threads, check_decodable, [captures[row] for row in doubtful], [names[row] for row in doubtful]
            )
        return seen


def _last(number: int, attempt: Sequence[bytes]) -> str:
    return f"attempts[{number}].captures[{len(attempt) - 1}]"


def _parts(captures: Sequence[bytes]) -> list[Sequence[bytes]]:
    """`captures` cut into as few parts as may be asked about at once."""
    parts: list[list[bytes]] = []
    left, room = 0, 0
    for capture in captures:
        if not left or len(capture) > room:
            parts.append([])
            left, room = PART_CAPTURES, PART_BYTES
        parts[-1].append(capture)
        left, room = left - 1, room - len(capture)
    return list(parts)
