"""Job processes: what a process of a job does, from its order to the student package in the object store.

The process that leads reads the data set and the teacher's features from the store, goes on from the job's checkpoint
where there is one, distils with the functions of the command `tutelage distil`, and keeps what lasts: checkpoints, the
package, the result. The others of its group (torchrun) only help with the batches.

While the object store is away a checkpoint is left out and the training goes on; everything else waits for the store,
for as long as `STORE_PATIENCE`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import structlog

from student_distiller.executors import CheckpointReport, MetricsReport, Report, StepReport
from student_distiller.job_orders import JobOrder
from student_distiller.job_records import Checkpoint, JobRecord, JobRecords, StudentResult
from student_distiller.job_spec import JobSpec
from student_distiller.teacher_features import TeacherFeatures, chunks
from tutelage.data_sets import pull_cohort, read_data_set
from tutelage.errors import CATALOGUE, Code, InputError, ObjectError, StorageError, TrainingError, TutelageError
from tutelage.files import atomic_write, read_bytes
from tutelage.manifest import Split
from tutelage.nn.checkpoints import Codec
from tutelage.nn.distil import Distillation
from tutelage.nn.packaging import Origin, package_student
from tutelage.nn.process_group import ProcessGroup, joined, own_device
from tutelage.nn.student_release import Distilled, Lesson, Taught, distil_student, divide, help_distil
from tutelage.nn.student_sources import Beginning, child_student, drawn_student
from tutelage.nn.students import READOUTS
from tutelage.nn.teacher_sources import processor
from tutelage.objects import ObjectStore
from tutelage.package import read_package
from tutelage.sealing import open_sealed, read_key, seal
from tutelage.signing import read_public_key, read_signer
from tutelage.stored_packages import keep_package, read_stored_package
from tutelage.stores import open_objects

__all__ = ["STORE_PATIENCE", "JobSurroundings", "run_job"]

STORE_PATIENCE = timedelta(minutes=5)
"""How long a process waits for an object store that does not answer: a restart of it, not an outage."""

CHECKPOINT_LIFETIME = timedelta(days=30)
"""A checkpoint is deleted when the next one takes its place; one that nobody came to delete goes by itself."""

MOST_CHECKPOINT_BYTES = 8 << 30
"""Larger than any training that a worker's memory holds."""

_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)

T = TypeVar("T")


@dataclass(frozen=True)
class JobSurroundings:
    """How a process of a job talks to whoever started it."""

    environ: Mapping[str, str]
    """Where torchrun says which process of a group this is."""
    report: Callable[[Report], None]
    """Takes what is to be told."""
    must_stop: Callable[[], bool] = lambda: False
    """Whether a checkpoint is to be made and the process to end."""


def run_job(order: JobOrder, around: JobSurroundings) -> None:
    """Do this process's part of a job; the process that leads returns when the job's result is in the store.

    Raises:
        TrainingError: `training-stopped` because of `must_stop`, its checkpoint is kept; `training-diverged`;
            `training-killed`, another process of the job ended.
        TutelageError: whatever else keeps the job from ending well.
    """
    device = own_device(processor(order.device), around.environ)
    with joined(around.environ, device) as group:
        structlog.get_logger().info(
            "process of a job at work", job=order.job_id, rank=group.rank, processes=group.size, device=device
        )
        if group.leads:
            _Leader(order, around, open_objects(order.place), device).run(group)
        else:
            help_distil(group, device=device, stop=around.must_stop)


class _Leader:
    """The process that reads, writes and reports for all."""

    def __init__(self, order: JobOrder, around: JobSurroundings, objects: ObjectStore, device: str) -> None:
        self._order, self._around, self._objects, self._device = order, around, objects, device
        self._records = JobRecords(objects)
        self._data_key = read_key(order.keys.data_key_file)
        self._begun_s = time.monotonic()
        self._checkpoint = order.scratch / "training.checkpoint"

    def run(self, group: ProcessGroup) -> None:
        """The whole job."""
        record = self._patiently(lambda: self._records.find(self._order.job_id))
        if self._patiently(lambda: self._records.result(record.job_id)) is not None:
            return
        lesson, beginning, left_out = self._prepared(record)
        self._restore()
        distilled = self._distilled(record, beginning, lesson, group)
        self._around.report(MetricsReport(_metrics(distilled)))
        self._keep(record, distilled, lesson, beginning, left_out)
        structlog.get_logger().info("student packaged", job=record.job_id, steps=record.spec.training.steps)

    def _distilled(self, record: JobRecord, beginning: Beginning, lesson: Lesson, group: ProcessGroup) -> Distilled:
        try:
            return distil_student(
                beginning.student,
                lesson,
                _settings(record.spec, self._order.checkpoint_every),
                device=self._device,
                checkpoint=self._checkpoint,
                progress=lambda done, steps, losses: self._around.report(StepReport(done, steps, dict(losses))),
                group=group,
                stop=self._around.must_stop,
                kept=self._kept,
                codec=self._codec(),
            )
        except StorageError as error:
            if error.code is not Code.CHECKPOINT_CORRUPT:
                raise
            # It is of another release, or the teacher's features were lost and it said them a little differently.
            self._records.forget_checkpoint(record.job_id, self._order.holder)
            raise TrainingError(
                Code.TRAINING_KILLED, "the job's checkpoint does not fit it any more: the next delivery begins anew"
            ) from error

    def _prepared(self, record: JobRecord) -> tuple[Lesson, Beginning, Mapping[str, int]]:
        """What the student learns from, the student, and how many captures the teacher could not use, by reason."""
        beginning = self._patiently(lambda: self._beginning(record.spec))
        taught = self._patiently(lambda: self._taught(record.spec))
        return (
            divide(taught, record.spec.held_out, record.spec.seed, beginning.student.spec.side),
            beginning,
            taught.left_out,
        )

    def _beginning(self, spec: JobSpec) -> Beginning:
        if spec.parent is None:
            return drawn_student(spec.size, spec.seed)
        own = read_signer(self._order.keys.signer_file).public_key()
        trusted = [own, *(read_public_key(path) for path in self._order.keys.trusted_files)]
        return child_student(read_stored_package(self._objects, spec.parent, trusted=trusted), spec.size)

    def _taught(self, spec: JobSpec) -> Taught:
        """The data set's captures that the teacher can use, with its features."""
        captures = read_data_set(self._objects, spec.data_set).select(Split.DISTIL)
        assert spec.teacher_space is not None  # noqa: S101 - chosen when the job was submitted
        said = TeacherFeatures(self._objects, spec.teacher_space, self._data_key).read(chunks(captures))
        usable = np.flatnonzero(said.usable)
        reasons = Counter(reason for reason, used in zip(said.reasons, said.usable, strict=True) if not used)
        if not len(usable):
            listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
            raise InputError(Code.DATA_INSUFFICIENT, f"the teacher can use none of {len(captures)} captures ({listed})")
        cohort = pull_cohort(self._objects, [captures[row] for row in usable], self._data_key)
        return Taught(cohort, said.features[usable], dict(reasons))

    def _restore(self) -> None:
        """Put the job's last checkpoint where the training looks for it; one that is gone or damaged begins anew."""
        run = self._patiently(lambda: self._records.run(self._order.job_id))
        if run is None or run.checkpoint is None:
            return
        key = run.checkpoint.key
        try:
            sealed = self._patiently(lambda: b"".join(self._objects.read(key)))
        except ObjectError as error:
            if error.code not in (Code.OBJECT_MISSING, Code.OBJECT_CORRUPT):
                raise
            structlog.get_logger().warning("checkpoint left out", job=self._order.job_id, reason=error.code.value)
            return
        atomic_write(self._checkpoint, sealed)
        structlog.get_logger().info("job goes on from a checkpoint", job=self._order.job_id, step=run.checkpoint.step)

    def _codec(self) -> Codec:
        """What seals checkpoints, on the disk as in the store: they hold what persons look like to the student."""
        purpose = f"checkpoint {self._order.job_id}"
        return Codec(
            lambda data: seal(data, self._data_key, purpose=purpose),
            lambda data: open_sealed(data, self._data_key, purpose=purpose),
        )

    def _kept(self, step: int) -> None:
        """Keep in the store what was just written to the disk."""
        begun = time.monotonic()
        sealed = read_bytes(self._checkpoint, at_most=MOST_CHECKPOINT_BYTES)
        try:
            stored = self._objects.put([sealed], lifetime=CHECKPOINT_LIFETIME)
            self._records.move(
                self._order.job_id, self._order.holder, self._spent(), Checkpoint(stored.key, step, stored.size)
            )
        except (ObjectError, StorageError) as error:
            if not CATALOGUE[error.code].retryable:
                raise
            # The former checkpoint is still there, and the training is worth more than its copy.
            structlog.get_logger().warning("checkpoint not stored", job=self._order.job_id, reason=error.code.value)
            return
        self._around.report(CheckpointReport(step, stored.size, time.monotonic() - begun))

    def _spent(self) -> timedelta:
        return self._order.spent + timedelta(seconds=time.monotonic() - self._begun_s)

    def _keep(
        self,
        record: JobRecord,
        distilled: Distilled,
        lesson: Lesson,
        beginning: Beginning,
        left_out: Mapping[str, int],
    ) -> None:
        """Pack the student, and keep package and result."""
        spec, signer = record.spec, read_signer(self._order.keys.signer_file)
        training = _summary(distilled, lesson, record, left_out)
        origin = Origin(
            spec.name, spec.version, spec.teacher_space or "", _made(record), beginning.parent, training=training
        )
        seal_key = read_key(self._order.keys.seal_key_file)
        data = package_student(
            distilled.student, distilled.readout, lesson.strangers, origin, signer=signer, seal_key=seal_key
        )
        package = read_package(data, trusted=[signer.public_key()])
        stored = self._patiently(lambda: keep_package(self._objects, package, data))
        result = StudentResult(
            digest=package.digest,
            file_digest=stored.file_digest,
            size_bytes=stored.size_bytes,
            readout=distilled.readout,
            space=package.space,
            teacher_space=package.info.teacher_space,
            metrics=_metrics(distilled),
        )
        self._patiently(lambda: self._records.keep_result(record.job_id, result, [stored.key]))

    def _patiently(self, call: Callable[[], T]) -> T:
        """What `call` returns once the store answers."""
        until, attempt = time.monotonic() + STORE_PATIENCE.total_seconds(), 0
        while True:
            try:
                return call()
            except TutelageError as error:
                pause = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)] * random.uniform(1.0, 1.5)
                late = time.monotonic() + pause > until
                if error.code is not Code.OBJECTS_UNAVAILABLE or late or self._around.must_stop():
                    raise
            attempt += 1
            time.sleep(pause)


def _settings(spec: JobSpec, checkpoint_every: timedelta) -> Distillation:
    # By steps only the last state is kept, so that what follows the training can be repeated without it.
    return Distillation(
        **asdict(spec.training),
        **asdict(spec.loss),
        seed=spec.seed,
        checkpoint_every=spec.training.steps,
        checkpoint_seconds=checkpoint_every.total_seconds(),
    )


def _metrics(distilled: Distilled) -> dict[str, Any]:
    return {readout: asdict(distilled.errors[readout]) for readout in READOUTS}


def _summary(distilled: Distilled, lesson: Lesson, record: JobRecord, left_out: Mapping[str, int]) -> dict[str, Any]:
    """What the package says of its training: as the command writes it, and the job's own data set and id."""
    return {
        "teacher": record.teacher_name,
        "settings": asdict(distilled.settings),
        "persons": len(lesson.taught.cohort.names),
        "captures": len(lesson.taught.cohort),
        "left_out": dict(left_out),
        "held_out": {name: asdict(errors) for name, errors in distilled.errors.items()},
        "readout_chosen_by": distilled.reason,
        "data_set": record.spec.data_set,
        "job_id": record.job_id,
    }


def _made(record: JobRecord) -> str:
    """When the job was submitted: the same job makes the same package, whoever finishes it."""
    return record.submitted.isoformat(timespec="seconds")
