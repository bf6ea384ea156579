"""Fetching soft labels: a worker asks teacher-inference for what the object store does not have yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from student_distiller.job_spec import JobSpec
from student_distiller.teacher_client import TeacherClient
from student_distiller.teacher_features import TeacherFeatures, chunks
from tutelage.data_sets import read_data_set
from tutelage.manifest import Split
from tutelage.objects import ObjectStore

__all__ = ["SoftLabels"]


@dataclass(frozen=True)
class SoftLabels:
    """The teacher's features of data sets, for all jobs of a worker."""

    objects: ObjectStore
    teacher: TeacherClient
    data_key: bytes
    """The fleet's data key."""

    async def fetch(self, spec: JobSpec) -> None:
        """See that the store has the teacher's features of all captures that the job learns from.

        What was fetched before, by whichever job, is not asked for again.

        Raises:
            SpaceMismatchError: Another teacher answers than the job's.
            ServiceError: The teacher does not answer, or not in time.
            ObjectError: The data set is not there or damaged, or the store does not answer.
            StorageError: `key-wrong`, the data set was sealed with another key.
        """
        assert spec.teacher_space is not None  # noqa: S101 - chosen when the job was submitted
        data_set = await asyncio.to_thread(read_data_set, self.objects, spec.data_set)
        features = TeacherFeatures(self.objects, spec.teacher_space, self.data_key)
        missing = await asyncio.to_thread(features.missing, chunks(data_set.select(Split.DISTIL)))
        structlog.get_logger().info("soft labels", chunks_missing=len(missing))
        for chunk in missing:
            pngs = await asyncio.to_thread(features.captures, chunk)
            found = await self.teacher.extract(pngs, spec.teacher_space)
            await asyncio.to_thread(features.keep, chunk, found)
