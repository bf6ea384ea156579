"""Attempts of callers who come at the same moment are judged together, and each is told of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("grpc")

from teacher_inference.extractions import joined, part
from teacher_inference.galleries import SiteGallery
from teacher_inference.judging import Judging
from tutelage.biometrics.features import Features
from tutelage.errors import SpaceMismatchError
from tutelage.labelling import Abstention, AbstentionPolicy, Extraction, Gallery, Judge, Judged

AXES = np.eye(4, dtype=np.float32)
SPACE = "s"


def seen(*axes: int) -> Extraction:
    count = len(axes)
    return Extraction(
        Features(AXES[list(axes)], SPACE), np.ones(count, dtype=np.bool_), ("",) * count, tuple(map(str, axes))
    )


def site(*persons: str, others: int = 0, space: str = SPACE) -> SiteGallery:
    """Each person lies on an axis of its own."""
    gallery = Gallery.of({person: Features(AXES[[axis]], space) for axis, person in enumerate(persons)})
    return SiteGallery(gallery, dict.fromkeys(persons, ""), others)


@dataclass(frozen=True)
class Counting(Judge):
    """A judge that keeps how many attempts it was asked about at a time."""

    asked: list[int] = field(default_factory=list)

    def judge(self, extraction, sizes, gallery):
        self.asked.append(len(sizes))
        return super().judge(extraction, sizes, gallery)


def play(work) -> None:
    async def whole() -> None:
        judge = Counting(AbstentionPolicy(min_cosine=0.5, min_margin=0.1), SPACE)
        with ThreadPoolExecutor(1) as threads:
            await work(judge, Judging(judge, threads))

    asyncio.run(whole())


def names(judged: list[Judged]) -> list[str | None]:
    return [each.answer.person for each in judged]


def test_all_who_ask_at_once_are_judged_at_once_and_each_gets_its_own():
    async def work(judge, judging):
        here = site("anna", "bert", "carl")
        found = await asyncio.gather(
            judging.judged(seen(0), [1], here),
            judging.judged(seen(2, 2, 1), [2, 1], here),
            judging.judged(seen(3), [1], here),
        )
        assert [names(each) for each in found] == [["anna"], ["carl", "bert"], [None]]
        assert found[1][0].answer.reason == "2"
        assert judge.asked == [4]
        assert names(await judging.judged(seen(1), [1], here)) == ["bert"]
        assert judge.asked == [4, 1]

    play(work)


def test_each_gallery_is_judged_by_itself():
    async def work(judge, judging):
        here, there, partly = site("anna", "bert"), site("carl", "dora"), site("emil", "fine", others=1)
        found = await asyncio.gather(*(judging.judged(seen(0), [1], place) for place in (here, there, here, partly)))
        assert [names(each) for each in found] == [["anna"], ["carl"], ["anna"], [None]]
        assert found[3][0].abstention is Abstention.OTHER_TEACHER
        assert sorted(judge.asked) == [1, 1, 2]

    play(work)


def test_who_goes_away_costs_the_others_nothing():
    async def work(judge, judging):
        here = site("anna", "bert")
        first, second = (asyncio.create_task(judging.judged(seen(axis), [1], here)) for axis in (0, 1))
        await asyncio.sleep(0)  # both have asked
        first.cancel()
        assert names(await second) == ["bert"]
        assert first.cancelled()
        assert judge.asked == [2]

    play(work)


def test_a_failure_reaches_everybody_and_the_next_is_judged():
    async def work(_judge, judging):
        foreign = site("anna", space="another")
        found = await asyncio.gather(*(judging.judged(seen(0), [1], foreign) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [SpaceMismatchError] * 3
        assert names(await judging.judged(seen(0), [1], site("anna", "bert"))) == ["anna"]

    play(work)


def test_what_is_joined_comes_apart_as_it_was():
    parts = [seen(0, 1), seen(2), seen(3, 3, 1)]
    whole = joined(parts, SPACE)
    starts = np.cumsum([0, *(len(each.usable) for each in parts)]).tolist()
    for start, end, each in zip(starts, starts[1:], parts, strict=False):
        found = part(whole, slice(start, end))
        assert found.notes == each.notes
        assert found.features.vectors.tolist() == each.features.vectors.tolist()
    assert joined(parts[:1], SPACE) is parts[0]
    assert len(joined([], SPACE).features) == 0
