"""Many threads at one device: students change, persons come, and no capture is answered by a half-swapped model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from toy_device import FLEET_KEY, PERSONS, ToyLife, finger, name_of, toy_release
from toy_networks import TOY

from device_sim.reception import Answer
from tutelage.biometrics.matching import Decision
from tutelage.errors import PackageError, UsageError
from tutelage.impostors import open_impostors
from tutelage.nn.packaging import Origin, Strangers, package_student
from tutelage.nn.students import load_student
from tutelage.package import read_package

THREADS = 3


def release(version: int) -> bytes:
    """The toy student with weights moved by nothing that matters: another space, the same persons."""
    package = read_package(toy_release().package, trusted=[toy_release().trusted])
    student = load_student(TOY, package.weights)
    generator = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1e-5 * torch.randn(weight.shape, generator=generator))
    signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    strangers = Strangers(*open_impostors(package.impostors, FLEET_KEY))
    origin = Origin("toy", f"v{version}", package.info.teacher_space, "2026-01-01T00:00:00")
    return package_student(student, "fused", strangers, origin, signer=signer, seal_key=FLEET_KEY)


def hammer(life: ToyLife, stop: threading.Event, answers: list[Answer], errors: list[Exception]) -> None:
    """Recognise until told to stop."""
    press = 0
    while not stop.wait(0.005):
        press += 1
        try:
            answers.append(life.device.answer(finger(press % PERSONS, press, 0.3), str(press // 3)))
        except Exception as error:
            errors.append(error)


@pytest.fixture
def busy(life: ToyLife):
    """A device at which several threads recognise all the time, what they were answered, and what went wrong."""
    life.enrolled()
    stop, answers, errors = threading.Event(), [], []
    threads = [threading.Thread(target=hammer, args=(life, stop, answers, errors)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    yield life, answers, errors
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_every_answer_and_its_record_are_of_one_student(busy):
    life, answers, _ = busy
    device = life.device
    spaces = {device.model.version: device.model.recogniser.space}
    for version in range(2, 6):
        device.install(release(version))
        spaces[device.model.version] = device.model.recogniser.space
        device.enrol(f"new-{version}", [finger(50 + version, 0)])
        if version == 4:
            device.revert("a test")
    assert len(set(spaces.values())) == len(spaces) == 5
    while len({answer.generation for answer in answers[-THREADS:]}) != 1 or answers[-1].generation != "v5":
        threading.Event().wait(0.05)
    seen = list(answers)
    assert {"v1", "v5"} <= {answer.generation for answer in seen}
    for answer in seen:
        assert answer.recognition.features.space == spaces[answer.generation]
        assert answer.record is not None
        assert (answer.record.generation, answer.record.space) == (answer.generation, spaces[answer.generation])
    ids = sorted(answer.record.observation.id for answer in seen)
    assert len(set(ids)) == len(ids)
    assert set(device.model.gallery.persons) >= {name_of(0), *(f"new-{version}" for version in range(2, 6))}
    answer = device.answer(finger(55, 0))
    assert (answer.recognition.match.person, answer.recognition.decision) == ("new-5", Decision.ACCEPT)


def test_persons_enrolled_and_erased_by_several_threads_are_those_of_the_store(busy):
    life, _, _ = busy
    device = life.device

    def come(number: int) -> None:
        for turn in range(4):
            device.enrol(f"t{number}-{turn}", [finger(300 + 10 * number + turn, 0)])
        if number == 1:  # once: where the door is never quiet, erasing takes its time
            device.erase("t1-0")

    threads = [threading.Thread(target=come, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = {f"t{number}-{turn}" for number in range(3) for turn in range(4)} - {"t1-0"}
    assert {person for person in device.store.persons() if person.startswith("t")} == expected
    assert {person for person in device.model.gallery.persons if person.startswith("t")} == expected
    assert sorted(set(device.model.gallery.persons)) == list(device.store.persons())


def test_what_may_not_be_installed_changes_nothing_while_it_recognises(busy, tmp_path: Path):
    life, _, _ = busy
    before = life.device.model
    stranger = replace(toy_release(), package=toy_release("v9").package[:-40] + bytes(40))
    for data, error in ((stranger.package, PackageError), (release(3), None), (release(2), UsageError)):
        if error is None:
            life.device.install(data)
            assert life.device.model.version == "v3"
        else:
            version = life.device.model.version
            with pytest.raises(error):
                life.device.install(data)
            assert life.device.model.version == version
    assert before.version == "v1"
