"""The public of a door: the same seed means the same persons, who are those of the demonstration."""

from __future__ import annotations

import numpy as np

from device_sim.drift import conditions_at_wear
from device_sim.public import Public
from device_sim.sensor import Condition
from device_sim.site import STRANGER, SiteSize, synthetic_site
from tutelage.nn.packaging import Strangers

SMALL = SiteSize(persons=3, references=2, probes=1, strangers=1, days=1)


def test_persons_their_names_and_fingers_are_those_of_the_demonstration():
    site = synthetic_site(4, 2, SMALL, Strangers([], []))
    public = Public(seed=4, site=2, persons=3)
    assert tuple(public.names) == site.persons == ("person-006", "person-007", "person-008")
    mine = [capture for place in range(3) for capture in public.references(place, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(mine, site.references.captures, strict=True))


def test_the_same_words_give_the_same_visits():
    first, again = Public(persons=3), Public(persons=3)
    for visit in (0, 7, 999_999_999):
        one, other = first.visitor(visit, 0.5), again.visitor(visit, 0.5)
        assert one.person == other.person
        assert np.array_equal(one.tries(1, Condition()), other.tries(1, Condition()))


def test_every_try_and_every_visit_is_another_capture():
    public = Public(persons=1)
    tries = [public.visitor(visit, 0.0).tries(k, Condition()) for visit in (0, 1) for k in range(3)]
    tries += public.references(0, 3)
    assert len({capture.tobytes() for capture in tries}) == len(tries)


def test_wear_changes_what_the_same_press_looks_like():
    visitor = Public(persons=1).visitor(0, 0.0)
    new, worn = visitor.tries(0, Condition()), visitor.tries(0, conditions_at_wear(0.8))
    assert new.astype(float).std() > worn.astype(float).std()


def test_so_large_a_share_of_the_visitors_are_strangers():
    public = Public(persons=5)
    names = [public.visitor(visit, 0.25).person for visit in range(2_000)]
    assert 0.2 < names.count(STRANGER) / len(names) < 0.3
    assert set(names) == {STRANGER, *public.names}
    assert STRANGER not in {public.visitor(visit, 0.0).person for visit in range(200)}
    assert {public.visitor(visit, 1.0).person for visit in range(200)} == {STRANGER}


def test_strangers_are_nobody_of_the_persons():
    public = Public(persons=2)
    strange = public.visitor(0, 1.0).tries(0, Condition())
    assert not any(
        np.array_equal(strange, reference) for place in range(2) for reference in public.references(place, 3)
    )
