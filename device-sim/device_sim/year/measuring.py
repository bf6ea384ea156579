"""A page of a device's year: how well it and its rivals recognise captures that none of them met, and what it keeps."""

from __future__ import annotations

from collections.abc import Sequence

from device_sim.recognition import RunningModel
from device_sim.results import SELF_DISTILLED
from device_sim.year.books import kept_by
from device_sim.year.life import Life
from device_sim.year.result import Page, Probed
from device_sim.year.rivals import Eyes
from tutelage.captures import Pixels


def page_of(life: Life, day: int) -> Page:
    """How `life` stands after `day`, with what was counted since the last page."""
    condition, model = life.place.condition(day), life.device.model
    return Page(
        day=day,
        sensor=life.place.timetable.sensor(day),
        wear=condition.wear,
        moisture=condition.moisture,
        gain=condition.gain,
        online=life.uplink.online,
        persons=len(life.enrolled),
        generation=model.version,
        attempts=life.books.attempts(),
        probed=_probed(life, day),
        kept=kept_by(life.device.store),
    )


def _probed(life: Life, day: int) -> Probed:
    """Rates of all recognisers on the same probes and strangers."""
    probes = life.place.probes(list(life.enrolled.values()), day)
    strangers, on_new = life.place.strangers(day), life.place.strangers(day, new_sensor=True)
    released = life.beside.released
    recognisers = {name: (released, rival.eyes) for name, rival in life.beside.rivals.items()}
    recognisers[SELF_DISTILLED] = (life.device.model, Eyes.of(life.device.model))
    misses: dict[str, float | None] = {}
    admitted: dict[str, float | None] = {}
    admitted_new: dict[str, float | None] = {}
    for name, (model, eyes) in recognisers.items():
        misses[name] = _share_missed(model, eyes, probes)
        admitted[name] = _share_admitted(model, eyes, strangers)
        admitted_new[name] = _share_admitted(model, eyes, on_new)
    return Probed(misses, admitted, admitted_new)


def _share_missed(model: RunningModel, eyes: Eyes, probes: Sequence[tuple[str, Pixels]]) -> float | None:
    if not probes:
        return None
    taken = eyes.take(model.features([capture for _, capture in probes]))
    return sum(not (t.accepted and t.person == person) for t, (person, _) in zip(taken, probes, strict=True)) / len(
        probes
    )


def _share_admitted(model: RunningModel, eyes: Eyes, strangers: Sequence[Pixels]) -> float | None:
    if not strangers:
        return None
    return sum(taken.accepted for taken in eyes.take(model.features(strangers))) / len(strangers)
