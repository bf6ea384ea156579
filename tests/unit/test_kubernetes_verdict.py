"""What a cluster says of a job, from Jobs and Pods as a real API server gave them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from student_distiller.kubernetes_verdict import IMAGE_PATIENCE, Verdict, has_ended, last_words, verdict
from tutelage.errors import CATALOGUE, Code, PersonError, StorageError, TrainingError, TutelageError

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
START_WITHIN = timedelta(minutes=10)


def ago(**passed: float) -> str:
    return (NOW - timedelta(**passed)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(*conditions: tuple[str, str], age: timedelta = timedelta(seconds=5), **metadata: Any) -> dict[str, Any]:
    """A Job with conditions that hold, each a type and a reason."""
    made = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    held = [
        {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": ago(seconds=5)}
        for kind, reason in conditions
    ]
    status = {"conditions": held} if held else {}
    return {"metadata": {"name": "j", "creationTimestamp": made, **metadata}, "status": status}


def pod(number: int, state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """A Pod whose container is in this state."""
    annotations = {"batch.kubernetes.io/job-completion-index": str(number)}
    containers = {"containerStatuses": [{"name": "process", "state": state}]} if state else {}
    metadata = {"name": f"j-{number}", "annotations": annotations, "creationTimestamp": ago(seconds=5)}
    return {"metadata": metadata, "status": {"phase": "Pending", **containers, **status}}


def ended(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


RUNNING = {"running": {"startedAt": "2030-01-01T00:00:00Z"}}
FAILED = job(("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded"))


def judged(the_job: dict[str, Any] | None, *pods: dict[str, Any], processes: int | None = None) -> Verdict | None:
    return verdict(the_job, pods, len(pods) if processes is None else processes, START_WITHIN, NOW)


def error_of(the_job: dict[str, Any] | None, *pods: dict[str, Any], processes: int | None = None) -> TutelageError:
    found = judged(the_job, *pods, processes=processes)
    assert found is not None
    assert found.error is not None
    return found.error


def test_a_job_goes_on_while_nothing_speaks_against_it():
    assert judged(job(), processes=3) is None
    assert judged(job(), pod(0), pod(1)) is None
    assert judged(job(), pod(0, RUNNING), pod(1, ended(0))) is None
    assert judged(job(age=timedelta(days=3)), pod(0, RUNNING), pod(1, RUNNING)) is None


def test_a_complete_job_ended_well_whatever_else_is_there():
    complete = job(("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached"))
    assert judged(complete) == Verdict(None)
    assert judged(complete, pod(0, ended(0)), pod(1, ended(1))) == Verdict(None)


def test_a_deadline_is_the_budgets():
    error = error_of(job(("Failed", "DeadlineExceeded")), pod(0, ended(137)))
    assert error.code is Code.TRAINING_BUDGET
    assert "used up its time" in error.message


def test_a_lack_of_memory_is_the_budgets_even_where_others_have_more_to_say():
    words = last_words(StorageError(Code.STORAGE_FAILED, "gone")).decode()
    error = error_of(FAILED, pod(0, ended(1, message=words)), pod(1, ended(137, reason="OOMKilled")))
    assert error.code is Code.TRAINING_BUDGET
    assert error.message.startswith("process 1 of the job took more memory than it may")


@pytest.mark.parametrize(
    "status",
    [
        {"reason": "Evicted", "phase": "Failed"},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]},
    ],
    ids=["evicted", "drained"],
)
def test_a_pod_that_had_to_go_is_tried_again(status: dict[str, Any]):
    words = last_words(TrainingError(Code.TRAINING_STOPPED, "told to stop")).decode()
    error = error_of(FAILED, pod(0, ended(1, message=words)), pod(1, ended(1, message=words), **status))
    assert error.code is Code.TRAINING_KILLED
    assert CATALOGUE[error.code].retryable
    assert "process 1 of the job had to leave its node" in error.message


def test_so_is_one_that_can_no_longer_be_asked():
    error = error_of(job(("Failed", "PodFailurePolicy")), pod(0, ended(1)))
    assert (error.code, "leave its node" in error.message) == (Code.TRAINING_KILLED, True)


def test_last_words_are_the_error_as_its_process_raised_it():
    said = PersonError("p7")
    words = last_words(said).decode()
    error = error_of(FAILED, pod(0, ended(1, message=words)))
    assert (type(error), error.code, error.message) == (PersonError, said.code, said.message)


def test_of_many_last_words_those_count_that_are_not_for_lack_of_the_others():
    lacking = last_words(TrainingError(Code.TRAINING_KILLED, "another process ended")).decode()
    stopped = last_words(TrainingError(Code.TRAINING_STOPPED, "told to stop")).decode()
    cause = last_words(TrainingError(Code.TRAINING_DIVERGED, "no number")).decode()
    pods = [pod(0, ended(1, message=lacking)), pod(1, ended(1, message=stopped)), pod(2, ended(1, message=cause))]
    assert error_of(FAILED, *pods).code is Code.TRAINING_DIVERGED
    assert error_of(FAILED, *pods[:2]).code is Code.TRAINING_KILLED


@pytest.mark.parametrize(
    "message",
    ["", "Traceback", "[]", "7", '{"code": "no-such-code", "message": "x"}', '{"code": "usage"}', '{"code": []}'],
)
def test_words_that_nobody_understands_are_no_words(message: str):
    error = error_of(FAILED, pod(0, ended(3, message=message)))
    assert error.code is Code.TRAINING_KILLED
    assert error.message.startswith("process 0 of the job ended with status 3")


def test_a_job_that_failed_without_a_trace_is_tried_again():
    assert error_of(FAILED).code is Code.TRAINING_KILLED


@pytest.mark.parametrize("text", ["x" * 100_000, "\N{GRINNING FACE}" * 5000, '"\\\n\x00' * 5000])
def test_last_words_fit_into_a_termination_log(text: str):
    words = last_words(TrainingError(Code.TRAINING_DIVERGED, text))
    assert len(words) <= 4096
    assert text.startswith(json.loads(words)["message"])


@pytest.mark.parametrize("gone", [None, job(deletionTimestamp=ago(seconds=1))], ids=["gone", "going"])
def test_a_job_that_somebody_deleted_is_tried_again(gone: dict[str, Any] | None):
    error = error_of(gone, pod(0, RUNNING))
    assert (error.code, "deleted by somebody else" in error.message) == (Code.TRAINING_KILLED, True)


def test_a_job_whose_pods_are_not_seen_to_end_is_waited_for_only_so_long():
    failing = job(("FailureTarget", "BackoffLimitExceeded"))
    assert judged(failing, pod(0, ended(1)), pod(1, RUNNING)) is None
    failing["status"]["conditions"][0]["lastTransitionTime"] = ago(seconds=46)
    assert error_of(failing, pod(0, ended(1)), pod(1, RUNNING)).code is Code.TRAINING_KILLED


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"])
def test_what_no_waiting_helps_against_is_told_at_once(reason: str):
    error = error_of(job(), pod(0, RUNNING), pod(1, {"waiting": {"reason": reason}}))
    assert error.code is Code.SETTING_INVALID
    assert reason in error.message


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerError"])
def test_a_registry_may_be_away_for_a_while(reason: str):
    waiting = {"waiting": {"reason": reason}}
    late = IMAGE_PATIENCE + timedelta(seconds=1)
    assert judged(job(), pod(0, waiting, startTime=ago(seconds=IMAGE_PATIENCE.total_seconds() - 1))) is None
    error = error_of(job(), pod(0, waiting, startTime=ago(seconds=late.total_seconds())))
    assert (error.code, CATALOGUE[error.code].retryable) == (Code.SERVICE_UNAVAILABLE, True)
    assert "process 0 of the job does not start" in error.message


def test_a_container_that_is_being_created_may_take_its_time():
    assert judged(job(), pod(0, {"waiting": {"reason": "ContainerCreating"}}, startTime=ago(hours=3))) is None


def unscheduled(since: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": since}
    return pod(1, conditions=[{**condition, "message": "0/3 nodes are available: 3 Insufficient memory."}])


def test_nodes_may_be_missing_for_a_while():
    assert judged(job(), pod(0, RUNNING), unscheduled(ago(seconds=599))) is None
    error = error_of(job(), pod(0, RUNNING), unscheduled(ago(seconds=601)))
    assert error.code is Code.SERVICE_UNAVAILABLE
    assert "no node for process 1 of the job: 0/3 nodes are available" in error.message


def test_so_may_pods_that_quotas_or_admission_keep_from_being_made():
    assert judged(job(age=timedelta(seconds=599)), pod(0, RUNNING), processes=2) is None
    error = error_of(job(age=timedelta(seconds=601)), pod(0, RUNNING), processes=2)
    assert error.code is Code.SERVICE_UNAVAILABLE
    assert "made 1 of 2 Pods" in error.message


def test_a_job_has_ended_once_nothing_of_it_runs():
    assert has_ended(job(("Complete", "")))
    assert has_ended(FAILED)
    assert not has_ended(job(("FailureTarget", "")))
    assert not has_ended(job(("SuccessCriteriaMet", "")))
    assert not has_ended(job())
