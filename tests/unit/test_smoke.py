"""The steps of a smoke check: what fails ends its part, tidying up is done all the same, and all of it is told."""

from __future__ import annotations

import itertools

from device_sim.smoke import Ending, Step, taken
from tutelage.errors import Code, ServiceError


def fails() -> str:
    raise ServiceError(Code.SERVICE_WRONG, "it does not")


def test_a_failure_ends_its_part_but_neither_others_nor_what_tidies_up():
    did: list[str] = []

    def works(name: str) -> str:
        did.append(name)
        return f"{name} works"

    plan = [
        Step("device", "health", lambda: works("health")),
        Step("device", "enrol", fails),
        Step("device", "recognise", lambda: works("recognise")),
        Step("device", "erase", lambda: works("erase"), always=True),
        Step("registry", "versions", lambda: works("versions")),
    ]
    walked = list(taken(plan))
    assert [done.ending for done in walked] == [Ending.OK, Ending.FAILED, Ending.SKIPPED, Ending.OK, Ending.OK]
    assert did == ["health", "erase", "versions"]
    assert [done.step for done in walked] == plan
    assert [done.error.code for done in walked if done.error] == [Code.SERVICE_WRONG]


def test_a_step_is_told_with_its_time_and_its_code():
    ticks = itertools.count(0, 0.25)
    good, bad = taken([Step("a", "one", lambda: "fine"), Step("b", "two", fails)], clock=lambda: next(ticks))
    assert good.as_json() == {
        "part": "a",
        "step": "one",
        "ending": "ok",
        "seconds": 0.25,
        "said": "fine",
        "code": None,
    }
    assert bad.as_json() == {
        "part": "b",
        "step": "two",
        "ending": "failed",
        "seconds": 0.25,
        "said": "it does not",
        "code": "service-wrong",
    }


def test_steps_are_taken_one_by_one_as_they_are_asked_for():
    did: list[int] = []
    walked = taken(Step("a", str(i), lambda i=i: f"{did.append(i)}") for i in range(3))
    next(walked)
    assert did == [0]
