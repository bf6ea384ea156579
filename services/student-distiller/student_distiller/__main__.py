"""`python -m student_distiller` serves; with `job SOCKET` or `work-on JOB HOLDER SPENT_S` it is a process of a job.

Nobody starts these two by hand. A worker starts the first, and listens at the socket for it; the second is what a Pod
of the cluster runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.errors import TutelageError
from tutelage.log import configure_logging


def main(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Serve, or do what the words say; failures end the process in the exit code of the catalogue."""
    if words[:1] == ["job"]:
        _run_job(Path(words[1]), environ)
    elif words[:1] == ["work-on"]:
        from student_distiller.work_on import work_on  # noqa: PLC0415 - the others have no use for it

        work_on(words[1:], environ)
    else:
        from student_distiller.service import PART  # noqa: PLC0415 - a process of a job serves nothing
        from tutelage.serving import run  # noqa: PLC0415

        run(PART, environ)


def _run_job(socket: Path, environ: Mapping[str, str]) -> None:
    from student_distiller.job_lines import ProcessLine  # noqa: PLC0415
    from student_distiller.job_orders import JobOrder  # noqa: PLC0415

    configure_logging("info", sys.stderr)
    # Before torch is imported, which takes seconds: it is connected, and therefore watched, from its beginning.
    line = ProcessLine(socket)
    try:
        from student_distiller.job_process import JobSurroundings, run_job  # noqa: PLC0415

        run_job(JobOrder.from_json(line.order), JobSurroundings(environ, line.report, line.must_stop))
    except TutelageError as error:
        line.failed(error)
        raise SystemExit(error.exit_code) from error
    finally:
        line.close()


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
