"""A line of students, v3 to v4, and what a device's folder of them holds."""

from __future__ import annotations

from pathlib import Path

from student_packages import CLOUD, DEVICE, digest, student_package

from device_sim.generations import CURRENT, Generations

KEYS = {"cloud_keys": [CLOUD.public_key()], "device_key": DEVICE.public_key()}

V3 = student_package("v3")
V3_1 = student_package("v3+1", parent=digest(V3))
V3_2 = student_package("v3+2", parent=digest(V3_1))
V4 = student_package("v4")
ALL = {"v3": V3, "v3+1": V3_1, "v3+2": V3_2, "v4": V4}


def opened(folder: Path) -> Generations:
    return Generations(folder, **KEYS)


def file_of(folder: Path, data: bytes) -> Path:
    return folder / (digest(data).removeprefix("sha256:") + ".tutelage")


def held(folder: Path) -> set[str]:
    """Versions whose files lie in the folder, whatever is in them."""
    known = {file_of(folder, data).name: version for version, data in ALL.items()}
    return {known.get(path.name, path.name) for path in folder.iterdir() if path.name != CURRENT}


def names(generations: Generations) -> tuple[str, str, str]:
    return str(generations.current), str(generations.previous), str(generations.released)
