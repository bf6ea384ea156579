"""An object store that speaks TLS: whom it is trusted by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from real_servers import minio

from tutelage.errors import Code, ObjectError
from tutelage.settings import Address, Secret
from tutelage.stores import ObjectsSettings, open_objects, prepared_objects


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectsSettings]:
    folder = tmp_path_factory.mktemp("authority")
    authority = Authority("stores")
    ca_file = authority.write(folder / "ca.crt")
    with minio(tmp_path_factory.mktemp("minio-tls"), authority.issue(folder, "minio")) as server:
        account = Secret(b"tester"), Secret(b"tester-secret")
        yield ObjectsSettings(Address("localhost", server.port), "kept", *account, ca_file=ca_file)


def test_whoever_trusts_its_authority_writes_and_reads(place: ObjectsSettings) -> None:
    stored = prepared_objects(place).put([b"weights"], size=7)
    assert b"".join(open_objects(place).read(stored.key)) == b"weights"


def test_the_system_does_not_know_its_authority(place: ObjectsSettings) -> None:
    with pytest.raises(ObjectError) as caught:
        open_objects(replace(place, ca_file=None)).list("", limit=1)
    assert caught.value.code is Code.OBJECTS_UNAVAILABLE


def test_another_authority_does_not_vouch_for_it(place: ObjectsSettings, tmp_path: Path) -> None:
    foreign = Authority("foreign").write(tmp_path / f"foreign-{os.getpid()}.crt")
    with pytest.raises(ObjectError) as caught:
        open_objects(replace(place, ca_file=foreign)).list("", limit=1)
    assert caught.value.code is Code.OBJECTS_UNAVAILABLE
