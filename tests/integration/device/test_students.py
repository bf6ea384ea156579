"""Students after their swap: watched, taken back where people are worse off, stepped over where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from lived_device import STRANGERS, accepted, having, reasons, swapped
from toy_device import ToyLife, finger

from device_sim.events import EventKind
from device_sim.watch import WatchRules
from tutelage.errors import PackageError


def test_a_student_that_people_are_worse_off_with_is_reverted(lived: ToyLife):
    having(lived, watch=WatchRules(window_captures=60, min_captures=10))
    lived.live(8, 0.0)
    swapped(lived)
    frozen = lived.device.generations.previous
    for stranger in STRANGERS:
        lived.attempt(stranger)
        if lived.device.model.version == "v1":
            break
    assert str(frozen) == lived.device.model.version == "v1"
    event = lived.device.store.last_event(EventKind.GENERATION_REVERTED)
    assert "attempts failed" in event.reason
    assert event.numbers["failed_since"] > event.numbers["failed_before"]
    assert lived.device.model.gallery.persons.count("p00") == 2
    assert accepted(lived.restart(), 0.0) >= 45
    assert lived.device.model.version == "v1"
    lived.live(1, 0.0)


def test_a_release_is_told_of_once(life: ToyLife):
    life.restart()
    told = [e.generation for e in life.device.store.events() if e.kind is EventKind.RELEASE_INSTALLED]
    assert told == ["v1"]


def test_a_student_that_nobody_is_worse_off_with_stays_also_after_a_restart(lived: ToyLife):
    having(lived, watch=WatchRules(window_captures=40, min_captures=10))
    lived.live(5, 0.0)
    swapped(lived)
    lived.live(2, 0.0)
    lived.restart()
    lived.live(8, 0.0)
    assert lived.device.model.version == "v1+1"
    assert lived.kinds().count("watch-passed") == 1
    lived.restart()
    lived.live(8, 0.0)
    assert lived.kinds().count("watch-passed") == 1


def test_with_nothing_to_go_back_to_the_present_student_stays(lived: ToyLife):
    with pytest.raises(PackageError):
        lived.device.revert("by hand")
    assert lived.device.model.version == "v1"
    assert "generation-reverted" not in lived.kinds()
    assert lived.device.recognise(finger(0, 60)).match.person is not None


def test_a_revert_with_nothing_to_go_back_to_is_told_once(lived: ToyLife):
    having(lived, watch=WatchRules(window_captures=60, min_captures=10))
    lived.live(8, 0.0)
    swapped(lived)
    running = lived.device.model.digest.partition(":")[2]
    for path in (lived.folder / "students").glob("*.tutelage"):
        if path.stem != running:
            path.write_bytes(b"")
    for stranger in STRANGERS:
        lived.attempt(stranger)
        if "revert-failed" in lived.kinds():
            break
    assert lived.device.model.version == "v1+1"
    (reason,) = reasons(lived, EventKind.REVERT_FAILED)
    assert "attempts failed" in reason
    assert "holds no student to use" in reason
    for stranger in STRANGERS[-10:]:
        lived.attempt(stranger)
    lived.restart()
    for stranger in STRANGERS[-20:]:
        lived.attempt(stranger)
    assert lived.kinds().count("revert-failed") == 1


def test_a_damaged_student_is_stepped_over_and_that_is_told(lived: ToyLife):
    swapped(lived)
    digest = lived.device.model.digest.partition(":")[2]
    path = lived.folder / "students" / f"{digest}.tutelage"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    device = lived.restart()
    assert device.model.version == "v1"
    assert accepted(device, 0.0) >= 45
    (reason,) = reasons(lived, EventKind.GENERATION_REVERTED)
    assert reason.startswith("at the start; v1+1: ")


def test_a_device_without_a_student_does_not_start(tmp_path: Path):
    life = ToyLife(tmp_path)
    life.close()
    for path in (tmp_path / "students").glob("*.tutelage"):
        path.write_bytes(b"")
    with pytest.raises(PackageError):
        life.restart()
