"""`python -m teacher_inference`: serve the part `teacher-inference` as the environment says, until a signal ends it."""

from __future__ import annotations

import os

from teacher_inference.service import PART
from tutelage.serving import run

if __name__ == "__main__":
    run(PART, os.environ)
