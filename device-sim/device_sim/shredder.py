"""Files that leave nothing behind: overwritten before they lose their name.

That holds as far as a file system writes in place. Flash memory and file systems that copy on write keep old blocks for
a while whatever a program does; this is why everything of persons is sealed before it is written, and why a change of
the device's key (`rotation`) is what makes such blocks worthless.
"""

from __future__ import annotations

import os
import shutil
from io import FileIO
from pathlib import Path

from tutelage.files import storage_error

_ZEROS = bytes(1 << 16)


def shred_file(path: Path) -> None:
    """Overwrite a file with zeros, let that reach the disk, and remove it; one that is not there is no error.

    Raises:
        StorageError: `storage-failed`; it may be overwritten, and can be tried again.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            overwrite(file)
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path, "removed") from error


def overwrite(file: FileIO) -> None:
    """Overwrite all of an open file with zeros, and let that reach the disk."""
    left = os.fstat(file.fileno()).st_size
    while left > 0:
        left -= file.write(_ZEROS[:left])
    os.fsync(file.fileno())


def shred_folder(folder: Path) -> None:
    """Shred everything in a folder, and remove it; one that is not there is no error.

    Raises:
        StorageError: `storage-failed`; what is left can be tried again.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            shred_file(path)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, folder, "removed") from error
