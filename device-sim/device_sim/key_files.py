"""Files of a device's key while it changes: the old one is there until nothing is sealed with it any more.

A new key that takes the old one's place lies beside it meanwhile, in a file named `.new`. So a power cut leaves both
files or the new one alone, and the same call finishes what was begun.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_sim.rotation import Rotation, replace_shredded, rotate_key
from tutelage.sealing import make_key, read_key

NEW = ".new"


def rotate_key_file(
    folder: Path, key_file: Path, new_key_file: Path | None, *, clock: Callable[[], float]
) -> tuple[Rotation, Path]:
    """Change the key of the device in `folder`; what was done, and the file of the key that opens it now.

    Args:
        folder: Of the device, which must not run.
        key_file: The present key.
        new_key_file: The new one, made if it is missing; None for one that takes the place of the present key.
        clock: Seconds since the epoch.

    Raises:
        StorageError: as `rotate_key`, and where a key cannot be read or written.
        UsageError: as `rotate_key`.
    """
    target = new_key_file or key_file.with_name(key_file.name + NEW)
    old = read_key(key_file)
    new = read_key(target) if target.exists() else make_key(target)
    done = rotate_key(folder / "store.sqlite", folder / "jobs", old=old, new=new, clock=clock)
    if new_key_file is not None:
        return done, target
    replace_shredded(target, key_file)
    return done, key_file
