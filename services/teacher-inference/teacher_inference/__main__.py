"""`python -m teacher_inference`: serve the part `teacher-inference` as the environment says, until a signal ends it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping


def main(environ: MutableMapping[str, str]) -> None:
    """Serve; what cannot be started ends the process in the exit code of the catalogue."""
    # Torch's threads wait for each other many times a capture. By default they do so at full speed, on processors that
    # calls and other programs need meanwhile. This is read when torch is loaded, hence before the imports.
    environ.setdefault("OMP_WAIT_POLICY", "passive")

    from teacher_inference.service import PART  # noqa: PLC0415
    from tutelage.serving import run  # noqa: PLC0415

    run(PART, environ)


if __name__ == "__main__":
    main(os.environ)
