"""Work on a job of the cluster: what `python -m student_distiller work-on JOB HOLDER SPENT_S` does in each of its Pods.

The process reads everything else from the variables of its Pod, which are those of the service, and from the files that
they name. SIGTERM, which Kubernetes sends before it ends a Pod, makes a last checkpoint. What the process fails with is
left in the termination log, where the executor reads it.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from student_distiller.job_orders import JobOrder, KeyFiles
from student_distiller.kubernetes_verdict import last_words
from tutelage.errors import TutelageError, UsageError
from tutelage.log import configure_logging
from tutelage.settings import PREFIX, Range, read_settings
from tutelage.stores import StoresSettings

__all__ = ["work_on"]

TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes takes a container's last words from."""


@dataclass(frozen=True)
class _Own:
    """Those of the distiller's settings that a process of a job needs."""

    signer_file: Path
    """See `DistillerSettings`."""
    seal_key_file: Path
    """Likewise."""
    data_key_file: Path
    """Likewise."""
    trusted_files: tuple[Path, ...] = ()
    """Likewise."""
    device: str = "auto"
    """Likewise."""
    checkpoint_every: Annotated[timedelta, Range(1, 3_600)] = timedelta(minutes=1)
    """Likewise."""
    scratch: Path | None = None
    """Likewise."""


@dataclass(frozen=True)
class _Settings:
    stores: StoresSettings = field(default_factory=StoresSettings)
    """Where queues and objects lie."""
    distiller: _Own = field(kw_only=True)
    """Of the distiller."""


def work_on(words: Sequence[str], environ: Mapping[str, str], termination_log: Path = TERMINATION_LOG) -> None:
    """Do this process's part of the job that the `words` name.

    Raises:
        SystemExit: It failed, in the exit code of the catalogue; the error is in the termination log.
    """
    configure_logging("info", sys.stderr)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        _work(words, environ, told)
    except TutelageError as error:
        sys.stderr.write(f"error [{error.code}]: {error.message}\n")
        if termination_log.is_file():  # Kubernetes has made it
            termination_log.write_bytes(last_words(error))
        raise SystemExit(error.exit_code) from error


def _work(words: Sequence[str], environ: Mapping[str, str], told: threading.Event) -> None:
    settings = read_settings(_Settings, environ, PREFIX)
    from student_distiller.job_process import JobSurroundings, run_job  # noqa: PLC0415 - torch takes seconds
    from student_distiller.job_reports import ReportSender  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="tutelage-job-", dir=settings.distiller.scratch) as scratch:
        order = _order(words, settings, Path(scratch))
        with ReportSender(settings.stores.redis.url, order.holder) as sender:
            run_job(order, JobSurroundings(environ, sender.report, told.is_set))


def _order(words: Sequence[str], settings: _Settings, scratch: Path) -> JobOrder:
    try:
        job_id, holder, spent_s = words
        spent = timedelta(seconds=float(spent_s))
    except ValueError as error:
        raise UsageError("work-on takes the id of a job, the name of a delivery and the seconds spent") from error
    own = settings.distiller
    return JobOrder(
        job_id=job_id,
        holder=holder,
        spent=spent,
        place=settings.stores.objects,
        keys=KeyFiles(own.signer_file, own.seal_key_file, own.data_key_file, own.trusted_files),
        scratch=scratch,
        checkpoint_every=own.checkpoint_every,
        device=own.device,
    )
