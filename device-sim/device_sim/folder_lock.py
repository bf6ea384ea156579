"""One process at a time uses a device's folder: two would each keep half of what happens, and undo each other's half.

The lock is on the file `lock` in the folder, and the system lets go of it whatever becomes of the process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.errors import SettingsError
from tutelage.files import PRIVATE_MODE, storage_error

__all__ = ["locked"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone.

    Raises:
        SettingsError: Another process uses it.
        StorageError: It is not there, or cannot be written.
    """
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
    except OSError as error:
        raise storage_error(error, path, "opened") from error
    with os.fdopen(descriptor) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"the device's folder is {str(folder)!r}: another process uses it, end that or name another folder"
            ) from error
        yield
