"""The calls of StudentDistillerService: requests checked and handed to `Jobs`, jobs turned into answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from student_distiller.job_messages import job_message, spec_from, states_from, watch_message
from student_distiller.jobs import Jobs
from tutelage.api.distiller.v1 import distiller_pb2 as pb
from tutelage.api.distiller.v1 import distiller_pb2_grpc
from tutelage.health import Check
from tutelage.paging import page_size, page_token, place_in
from tutelage.server import Service

__all__ = ["StudentDistillerServicer", "distiller_service"]

NAME = pb.DESCRIPTOR.services_by_name["StudentDistillerService"].full_name
"""Full name of the service."""


class StudentDistillerServicer(distiller_pb2_grpc.StudentDistillerServiceServicer):
    """Answers the calls of the contract; each raises what the catalogue has for it."""

    def __init__(self, jobs: Jobs) -> None:
        """Answer by `jobs`."""
        self._jobs = jobs

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        """See the contract."""
        job = await self._jobs.submit(request.idempotency_key, spec_from(request.spec))
        return pb.SubmitJobResponse(job=job_message(job))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """See the contract."""
        return pb.GetJobResponse(job=job_message(await self._jobs.get(request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """See the contract."""
        states = states_from(request.states)
        name = request.name if request.HasField("name") else None
        question = (sorted(state.value for state in states), name)
        jobs, after = await self._jobs.page(
            place_in(request.page_token, *question),
            page_size(request.page_size),
            lambda record: name is None or record.spec.name == name,
            states,
        )
        return pb.ListJobsResponse(
            jobs=[job_message(job) for job in jobs], next_page_token=page_token(after, *question)
        )

    async def WatchJob(
        self,
        request: pb.WatchJobRequest,
        context: Any,
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """See the contract."""
        async for job in self._jobs.watch(request.job_id):
            yield watch_message(job)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """See the contract."""
        return pb.CancelJobResponse(job=job_message(await self._jobs.cancel(request.job_id, request.reason)))


def distiller_service(jobs: Jobs, checks: dict[str, Check]) -> Service:
    """The service as a server takes it, SERVING while all `checks` pass."""
    add = partial(distiller_pb2_grpc.add_StudentDistillerServiceServicer_to_server, StudentDistillerServicer(jobs))
    return Service(NAME, add, checks)
