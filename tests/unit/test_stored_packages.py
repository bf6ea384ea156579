"""Student packages in the object store: found by their own digest, and verified whenever they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from student_packages import CLOUD, STRANGER, student_package

from tutelage.errors import Code, ObjectError, PackageError
from tutelage.folder_objects import FolderObjects
from tutelage.package import read_package
from tutelage.stored_packages import find_package, keep_package, read_stored_package

TRUSTED = [CLOUD.public_key()]


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path)


def kept(objects: FolderObjects, version: str = "v1", signer=None):
    data = student_package(version, signer=signer)
    package = read_package(data, trusted=[CLOUD.public_key(), STRANGER.public_key()])
    return package, data, keep_package(objects, package, data)


def test_a_package_is_found_by_its_own_digest(objects):
    package, data, stored = kept(objects)
    assert find_package(objects, package.digest) == stored
    assert (stored.digest, stored.size_bytes) == (package.digest, len(data))
    assert b"".join(objects.read(stored.key)) == data
    assert read_stored_package(objects, package.digest, trusted=TRUSTED).manifest == package.manifest


def test_of_two_files_of_one_package_the_first_stays(objects):
    _, _, first = kept(objects)
    # The same manifest under another signature: one package in two files.
    package, _, second = kept(objects, signer=STRANGER)
    assert package.digest == first.digest
    assert second == first


def test_a_package_that_nobody_kept_or_trusts_is_refused(objects):
    with pytest.raises(ObjectError) as absent:
        find_package(objects, "sha256:" + "0" * 64)
    assert absent.value.code is Code.OBJECT_MISSING
    with pytest.raises(ObjectError) as path:
        find_package(objects, "sha256:../../x")
    assert path.value.code is Code.OBJECT_KEY
    package, _, _ = kept(objects, "v2", signer=STRANGER)
    with pytest.raises(PackageError) as unsigned:
        read_stored_package(objects, package.digest, trusted=TRUSTED)
    assert unsigned.value.code is Code.PACKAGE_SIGNATURE


def test_another_package_in_its_place_is_told(objects, tmp_path: Path):
    (first, _, _), (second, _, _) = kept(objects), kept(objects, "v2")
    names = [tmp_path / f"student-packages/{package.digest.partition(':')[2]}.json" for package in (first, second)]
    names[0].write_bytes(names[1].read_bytes())
    with pytest.raises(PackageError, match="holds"):
        read_stored_package(objects, first.digest, trusted=TRUSTED)
    names[0].write_bytes(b"{}")
    with pytest.raises(ObjectError) as damaged:
        find_package(objects, first.digest)
    assert damaged.value.code is Code.OBJECT_CORRUPT
