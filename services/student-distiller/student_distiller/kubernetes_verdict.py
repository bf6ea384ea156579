"""What a cluster says of a job: that it goes on, that it ended well, or why it did not, as an error of the catalogue.

Everything is read from the Job and its Pods as the API server gives them, in this order:

    Job complete                                    ended well
    Job past its deadline                           training-budget
    a container out of memory                       training-budget
    a Pod that had to go (eviction, node, drain)    training-killed, may be tried again
    a process's own last words                      the error they name
    any other failure                               training-killed, may be tried again
    Job deleted by somebody                         training-killed, may be tried again
    image or settings that cannot be had            setting-invalid at once, service-unavailable after `IMAGE_PATIENCE`
    Pods that find no node, or are not made         service-unavailable after `KubernetesSettings.start_within`

Last words are what a process wrote to the container's termination log: `{"code": ..., "message": ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from student_distiller.kubernetes_manifest import index_of
from tutelage.errors import Code, ServiceError, SettingsError, TrainingError, TutelageError, error_for

__all__ = ["IMAGE_PATIENCE", "Verdict", "has_ended", "last_words", "verdict"]

Json: TypeAlias = Mapping[str, Any]

IMAGE_PATIENCE = timedelta(minutes=3)
"""How long an image may fail to be pulled: a registry's restart, and a few of the node's own growing pauses."""

END_PATIENCE = timedelta(seconds=45)
"""How long the other Pods of a Job that has failed get to end: their grace, and what a busy node needs to tell."""

MOST_WORDS = 4096
"""Bytes of a termination log that Kubernetes keeps."""

_HOPELESS = {
    "InvalidImageName": "the image's name is none",
    "ErrImageNeverPull": "the image is not on the node, and may not be pulled",
    "CreateContainerConfigError": "the ConfigMap or the Secret is missing, or lacks an entry",
}
"""Reasons to wait that no waiting ends."""
_PULLING = ("ErrImagePull", "ImagePullBackOff", "ErrImageInspect", "RegistryUnavailable")
_STARTING = ("CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Verdict:
    """How a job ended."""

    error: TutelageError | None = None
    """Why it did not end well; None: it did."""


def verdict(
    job: Json | None, pods: Sequence[Json], processes: int, start_within: timedelta, now: datetime
) -> Verdict | None:
    """How the job ended; None while it goes on."""
    if job is None or job["metadata"].get("deletionTimestamp"):
        return Verdict(_killed("the cluster's Job was deleted by somebody else: see who deletes Jobs there"))
    if _condition(job, "Complete"):
        return Verdict()
    failed = _condition(job, "Failed") or _given_up(job, now)
    if failed is not None:
        return Verdict(_cause(failed, pods))
    error = _stuck(job, pods, processes, start_within, now)
    return Verdict(error) if error else None


def has_ended(job: Json) -> bool:
    """Whether nothing of a Job runs any more, nor will."""
    return bool(_condition(job, "Complete") or _condition(job, "Failed"))


def last_words(error: TutelageError) -> bytes:
    """What a process that ends with `error` leaves in its termination log; `verdict` reads it."""
    room = MOST_WORDS // 8  # of a message: a character takes six bytes at most
    words = {"code": error.code.value, "message": error.message[:room]}
    return json.dumps(words, ensure_ascii=False).encode("utf-8", "replace")


def _condition(thing: Json, kind: str) -> Json | None:
    """The condition of this kind where it holds."""
    found = [c for c in thing.get("status", {}).get("conditions") or () if c["type"] == kind and c["status"] == "True"]
    return found[0] if found else None


def _given_up(job: Json, now: datetime) -> Json | None:
    """The condition of a Job that has failed but for a Pod whose end cannot be seen, as on a node that is gone."""
    failing = _condition(job, "FailureTarget")
    late = failing is not None and now - _time(failing["lastTransitionTime"]) > END_PATIENCE
    return failing if late else None


def _cause(failed: Json, pods: Sequence[Json]) -> TutelageError:
    """Why a Job failed, by the rules at the top of this module."""
    if failed.get("reason") == "DeadlineExceeded":
        return TrainingError(
            Code.TRAINING_BUDGET, "the job used up its time: allow more, or ask for fewer steps or more processes"
        )
    for pod in pods:
        if any(ended.get("reason") == "OOMKilled" for ended in _terminated(pod)):
            return TrainingError(
                Code.TRAINING_BUDGET,
                f"process {index_of(pod)} of the job took more memory than it may: ask for a smaller batch, more "
                "processes or more memory",
            )
    for pod in pods:
        if pod["status"].get("reason") == "Evicted" or _condition(pod, "DisruptionTarget"):
            return _killed(f"process {index_of(pod)} of the job had to leave its node: it goes on elsewhere")
    if failed.get("reason") == "PodFailurePolicy":  # the Pod itself can no longer be asked
        return _killed("a process of the job had to leave its node: it goes on elsewhere")
    return _said(pods) or _silent(pods)


def _said(pods: Sequence[Json]) -> TutelageError | None:
    """The cause in the words of the processes: of several, that of one which did not fail for lack of the others."""
    errors = [error for pod in pods for ended in _terminated(pod) if (error := _words(ended)) is not None]
    causes = [error for error in errors if error.code not in (Code.TRAINING_KILLED, Code.TRAINING_STOPPED)]
    return next(iter([*causes, *errors]), None)


def _words(ended: Json) -> TutelageError | None:
    """The error in a termination log; None where there is none that this release knows."""
    try:
        words = json.loads(ended["message"])
        return error_for(Code(words["code"]), str(words["message"]))
    except (LookupError, TypeError, ValueError):
        return None


def _silent(pods: Sequence[Json]) -> TutelageError:
    for pod in pods:
        for ended in _terminated(pod):
            if ended.get("exitCode"):
                return _killed(f"process {index_of(pod)} of the job ended with status {ended['exitCode']}: see its log")
    return _killed("a process of the job ended without a word: see the events of its Job")


def _killed(why: str) -> TrainingError:
    return TrainingError(Code.TRAINING_KILLED, why)


def _states(pod: Json, kind: str) -> Iterator[Json]:
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if (state := container.get("state", {}).get(kind)) is not None:
            yield state


def _terminated(pod: Json) -> list[Json]:
    return list(_states(pod, "terminated"))


def _stuck(
    job: Json, pods: Sequence[Json], processes: int, start_within: timedelta, now: datetime
) -> TutelageError | None:
    """Why a job will not start; None while it may, or has."""
    for pod in pods:
        for waiting in _states(pod, "waiting"):
            error = _not_starting(pod, waiting, now)
            if error is not None:
                return error
    for pod in pods:
        error = _without_node(pod, start_within, now)
        if error is not None:
            return error
    if len(pods) < processes and now - _time(job["metadata"]["creationTimestamp"]) > start_within:
        return ServiceError(
            Code.SERVICE_UNAVAILABLE,
            f"the cluster made {len(pods)} of {processes} Pods of the job: see quotas and admission of its namespace",
        )
    return None


def _not_starting(pod: Json, waiting: Json, now: datetime) -> TutelageError | None:
    reason = waiting.get("reason", "")
    if reason in _HOPELESS:
        return SettingsError(f"jobs cannot start in the cluster: {_HOPELESS[reason]} ({reason})")
    late = now - _time(pod["status"].get("startTime") or pod["metadata"]["creationTimestamp"]) > IMAGE_PATIENCE
    if late and reason in (*_PULLING, *_STARTING):
        what = "its image cannot be pulled" if reason in _PULLING else "its container cannot be started"
        return ServiceError(
            Code.SERVICE_UNAVAILABLE, f"process {index_of(pod)} of the job does not start: {what} ({reason})"
        )
    return None


def _without_node(pod: Json, start_within: timedelta, now: datetime) -> TutelageError | None:
    for condition in pod.get("status", {}).get("conditions") or ():
        if (condition["type"], condition["status"]) != ("PodScheduled", "False"):
            continue
        if now - _time(condition.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]) > start_within:
            return ServiceError(
                Code.SERVICE_UNAVAILABLE,
                f"the cluster finds no node for process {index_of(pod)} of the job: {condition.get('message', '')}",
            )
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
