"""`python -m device_sim` runs one device until it is signalled; README.md lists the variables that it reads."""

from __future__ import annotations

import os

from device_sim.service import run

if __name__ == "__main__":
    run(os.environ)
