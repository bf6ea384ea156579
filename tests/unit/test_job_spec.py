"""Job specs: every rule of the contract, by field, and one canonical form for equal wishes."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from google.protobuf.json_format import ParseDict

from student_distiller.job_messages import job_message, spec_from, states_from
from student_distiller.job_records import JobRecord
from student_distiller.job_spec import Budget, JobSpec, LossWeights, Training, check_key
from student_distiller.jobs import Job, JobState
from tutelage.api.distiller.v1 import distiller_pb2 as pb
from tutelage.errors import RequestError
from tutelage.nn.distil import Distillation
from tutelage.objects import utc_now

DIGEST = "sha256:" + "a" * 64
LEAST = {"name": "thumbs", "version": "v1", "data_set": DIGEST, "size": "STUDENT_SIZE_TINY"}


def asked(**changed) -> JobSpec:
    return spec_from(ParseDict({**LEAST, **changed}, pb.JobSpec()))


def test_what_is_left_out_has_the_defaults_of_the_contract():
    spec = asked()
    assert spec == JobSpec("thumbs", "v1", DIGEST, "tiny")
    assert (spec.training, spec.held_out) == (Training(1500, 64, 0.003, 0.02), 0.25)
    assert spec.loss == LossWeights(0.9, 2.0, 4.0, 0.2, 32.0)
    assert spec.budget == Budget(timedelta(hours=24), 1, None)
    assert (spec.teacher_space, spec.parent, spec.seed) == (None, None, 0)


def test_the_defaults_are_those_of_the_command():
    default = Distillation()
    for mine in (Training(), LossWeights()):
        assert all(getattr(default, name) == value for name, value in vars(mine).items())


def test_leaving_a_field_out_and_writing_its_default_are_the_same_wish():
    spelt = asked(training={"steps": 1500}, budget={"maxDuration": "86400s"}, heldOut=0.25, loss={"soft": 0.9})
    assert spelt.canonical == asked().canonical
    assert asked(seed=1).canonical != asked().canonical
    assert asked(teacherSpace="x").canonical != asked().canonical


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": ""}, "spec.name"),
        ({"name": "../x"}, "spec.name"),
        ({"name": "a" * 65}, "spec.name"),
        ({"name": ".hidden"}, "spec.name"),
        ({"version": "v1+2"}, "spec.version"),
        ({"version": "v01"}, "spec.version"),
        ({"version": "v1000000000"}, "spec.version"),
        ({"dataSet": ""}, "spec.data_set"),
        ({"dataSet": "sha256:" + "A" * 64}, "spec.data_set"),
        ({"dataSet": "../../data"}, "spec.data_set"),
        ({"teacherSpace": ""}, "spec.teacher_space"),
        ({"teacherSpace": "x\n"}, "spec.teacher_space"),
        ({"parent": "v3"}, "spec.parent"),
        ({"size": "STUDENT_SIZE_UNSPECIFIED"}, "spec.size"),
        ({"heldOut": 0}, "spec.held_out"),
        ({"heldOut": 0.91}, "spec.held_out"),
        ({"heldOut": "NaN"}, "spec.held_out"),
        ({"training": {"steps": 0}}, "spec.training.steps"),
        ({"training": {"steps": 1_000_001}}, "spec.training.steps"),
        ({"training": {"batch": 1}}, "spec.training.batch"),
        ({"training": {"batch": 8193}}, "spec.training.batch"),
        ({"training": {"learningRate": 0}}, "spec.training.learning_rate"),
        ({"training": {"learningRate": "Infinity"}}, "spec.training.learning_rate"),
        ({"training": {"weightDecay": -0.1}}, "spec.training.weight_decay"),
        ({"loss": {"soft": 1.1}}, "spec.loss.soft"),
        ({"loss": {"direction": -1}}, "spec.loss.direction"),
        ({"loss": {"temperature": 0}}, "spec.loss.temperature"),
        ({"loss": {"margin": 1.5}}, "spec.loss.margin"),
        ({"loss": {"scale": 0}}, "spec.loss.scale"),
        ({"budget": {"maxDuration": "0s"}}, "spec.budget.max_duration"),
        ({"budget": {"maxDuration": "-1s"}}, "spec.budget.max_duration"),
        ({"budget": {"maxDuration": "315576000000s"}}, "spec.budget.max_duration"),
        ({"budget": {"processes": 0}}, "spec.budget.processes"),
        ({"budget": {"processes": 65}}, "spec.budget.processes"),
        ({"budget": {"processes": 65 - 1}, "training": {"batch": 63}}, "spec.training.batch"),
        ({"budget": {"maxMemoryBytes": 1}}, "spec.budget.max_memory_bytes"),
        ({"seed": -1}, "spec.seed"),
        ({"seed": 2**53}, "spec.seed"),
    ],
)
def test_every_broken_rule_names_its_field(changed, field):
    with pytest.raises(RequestError) as raised:
        asked(**changed)
    assert raised.value.message.startswith(f"{field} must be"), raised.value.message


def test_all_broken_rules_are_told_at_once():
    with pytest.raises(RequestError, match=r"spec.name.*spec.version.*spec.seed"):
        asked(name="", version="", seed=-1)


def test_what_is_sent_beyond_the_contract_is_refused():
    message = ParseDict(LEAST, pb.JobSpec())
    message.size = 9
    with pytest.raises(RequestError, match=r"spec\.size"):
        spec_from(message)
    for states in ([0], [7], [2, -1]):
        with pytest.raises(RequestError, match="states"):
            states_from(states)
    assert states_from([1, 1, 6]) == {JobState.QUEUED, JobState.DEAD}
    duration = ParseDict(LEAST, pb.JobSpec())
    duration.budget.max_duration.seconds = 2**63 - 1
    duration.budget.max_duration.nanos = 2**31 - 1
    with pytest.raises(RequestError, match="max_duration"):
        spec_from(duration)


def test_a_spec_goes_through_json_and_through_a_message_unchanged():
    spec = asked(
        parent=DIGEST,
        teacherSpace="t/teacher",
        heldOut=0.5,
        training={"steps": 7, "batch": 9, "learningRate": 1e-5, "weightDecay": 0},
        loss={"soft": 0, "direction": 0, "temperature": 0.5, "margin": 1, "scale": 1e6},
        budget={"maxDuration": "1.5s", "processes": 2, "maxMemoryBytes": 2**40},
        seed=2**53 - 1,
    )
    assert JobSpec.from_json(spec.as_json()) == spec
    record = JobRecord("0" * 32, "key", spec, spec, "small", utc_now())
    assert spec_from(job_message(Job(record, JobState.QUEUED)).spec) == spec
    assert spec_from(job_message(Job(replace(record, spec=asked()), JobState.QUEUED)).spec) == asked()


@pytest.mark.parametrize("key", ["", "a" * 65, "a/b", "../x", "ä", "a b", "a\n"])
def test_a_key_that_is_none_is_refused(key: str):
    with pytest.raises(RequestError, match="idempotency_key"):
        check_key(key)


def test_numbers_that_are_none_never_pass():
    for value in (math.nan, math.inf, -math.inf):
        for name in vars(LossWeights()):
            with pytest.raises(RequestError, match=name):
                JobSpec("a", "v1", DIGEST, "tiny", loss=replace(LossWeights(), **{name: value}))
