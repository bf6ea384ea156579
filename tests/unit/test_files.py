from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.errors import Code, StorageError
from tutelage.files import PRIVATE_MODE, atomic_write, create_file, read_bytes, storage_error, sweep

TINY_DISK_BYTES = 64 * 1024


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={TINY_DISK_BYTES}", "none", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_exactly_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"one")
    atomic_write(tmp_path / "b", b"")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "b").read_bytes() == b""
    assert names(tmp_path) == ["a", "b"]


def test_replaces_the_former_content(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"a long former content")
    atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_reader_of_the_former_file_keeps_what_it_opened(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"former")
    with (tmp_path / "a").open("rb") as file:
        atomic_write(tmp_path / "a", b"new")
        assert file.read() == b"former"


def test_takes_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    atomic_write(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"safe")
    (tmp_path / "link").symlink_to("target")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"safe"
    assert not (tmp_path / "link").is_symlink()


def test_mode_is_that_of_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"former")
    (tmp_path / "key").chmod(0o644)
    atomic_write(tmp_path / "key", b"secret", mode=PRIVATE_MODE)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_create_refuses_what_exists_and_leaves_it(tmp_path: Path) -> None:
    create_file(tmp_path / "a", b"first")
    with pytest.raises(StorageError, match="could not be written \\(File exists\\)") as caught:
        create_file(tmp_path / "a", b"second")
    assert caught.value.code is Code.STORAGE_FAILED
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("write", [atomic_write, create_file])
def test_missing_folder_and_folder_as_target(tmp_path: Path, write) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent" / "a", tmp_path / "folder"):
        with pytest.raises(StorageError) as caught:
            write(path, b"x")
        assert caught.value.code is Code.STORAGE_FAILED
        assert str(path) in caught.value.message
        assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("write", [atomic_write, create_file])
def test_full_disk_leaves_the_former_file_and_no_other(tiny_disk: Path, write) -> None:
    (tiny_disk / "kept").write_bytes(b"former")
    with pytest.raises(StorageError) as caught:
        write(tiny_disk / ("kept" if write is atomic_write else "new"), os.urandom(2 * TINY_DISK_BYTES))
    assert caught.value.code is Code.STORAGE_FULL
    assert caught.value.exit_code == 50
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert names(tiny_disk) == ["kept"]
    assert (tiny_disk / "kept").read_bytes() == b"former"
    atomic_write(tiny_disk / "small", b"fits again")


def test_a_limit_on_file_size_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError) as caught:
            atomic_write(tmp_path / "a", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code is Code.STORAGE_FAILED
    assert names(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "a").write_bytes(b"former")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"former"


def test_content_is_on_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    atomic_write(tmp_path / "a", b"x")
    assert steps == ["file", "rename", "folder"]


def test_a_killed_writer_leaves_only_what_sweep_removes(tmp_path: Path) -> None:
    dying = (
        "import os, pathlib, sys, tutelage.files as files\n"
        "os.fsync = lambda _: os._exit(9)\n"
        "files.atomic_write(pathlib.Path(sys.argv[1]), b'new')"
    )
    done = subprocess.run([sys.executable, "-c", dying, tmp_path / "a"], check=False)
    assert done.returncode == 9
    (tmp_path / "mine.tmp").write_bytes(b"not a leftover")
    assert len(names(tmp_path)) == 2
    assert sweep(tmp_path) == 1
    assert sweep(tmp_path) == 0
    assert names(tmp_path) == ["mine.tmp"]


def test_reads_all_or_the_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "a", at_most=100) == b"0123456789"
    assert read_bytes(tmp_path / "a", at_most=3) == b"012"


def test_reading_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(StorageError) as caught:
            read_bytes(path, at_most=10)
        assert caught.value.code is Code.STORAGE_FAILED
        assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.STORAGE_FULL),
        (errno.EDQUOT, Code.STORAGE_FULL),
        (errno.EROFS, Code.STORAGE_FAILED),
        (errno.EIO, Code.STORAGE_FAILED),
    ],
)
def test_errors_of_the_system_are_full_or_failed(number: int, code: Code) -> None:
    error = storage_error(OSError(number, os.strerror(number)), Path("store/x"), "written")
    assert error.code is code
    assert error.message.startswith(f"store/x could not be written ({os.strerror(number)}): ")
