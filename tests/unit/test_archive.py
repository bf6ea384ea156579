from __future__ import annotations

import hashlib
import io
import time
import warnings
import zipfile

import pytest

from tutelage.archive import pack, unpack
from tutelage.errors import Code, PackageError

MEMBERS = {"one.json": b"{}", "two.bin": bytes(range(256)), "empty": b""}


def refused(data: bytes) -> str:
    with pytest.raises(PackageError) as caught:
        unpack(data)
    assert caught.value.code is Code.PACKAGE_CORRUPT
    return caught.value.message


def zipped(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as a common tool makes it, with the fixed date so that only the asked difference is there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that come twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def test_unpacks_what_was_packed_in_order() -> None:
    assert list(unpack(pack(MEMBERS)).items()) == list(MEMBERS.items())


def test_members_lie_where_they_came_from():
    data = bytearray(pack(MEMBERS))
    content = unpack(data)["two.bin"]
    data[data.index(MEMBERS["two.bin"])] = 7
    assert content[0] == 7


def test_nothing_is_looked_at_before_it_arrived():
    data = pack({**MEMBERS, "long.bin": bytes(range(256)) * 10_000})
    memory, asked = bytearray(len(data)), []

    def arrived(end: int) -> None:
        asked.append(end)
        memory[:end] = data[:end]

    assert unpack(memory, arrived=arrived) == unpack(data)
    assert asked == sorted(asked)
    assert asked[-1] == len(data)


@pytest.mark.parametrize("end", [0, 10, 45, 300])
def test_an_archive_that_stops_arriving_is_not_waited_for(end):
    data = pack(MEMBERS)

    def arrived(wanted: int) -> None:
        if wanted > end:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        unpack(data, arrived=arrived)


def test_members_are_seen_whole_and_in_order_piece_by_piece():
    members, found = {**MEMBERS, "long.bin": bytes(range(256)) * 10_000}, {}
    unpack(pack(members), seen=lambda name, piece: found.setdefault(name, []).append(bytes(piece)))
    assert {name: b"".join(pieces) for name, pieces in found.items()} == {n: c for n, c in members.items() if c}
    assert len(found["long.bin"]) == 3


def test_a_common_tool_opens_it() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(MEMBERS))) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == MEMBERS
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}


def test_the_form_never_changes() -> None:
    """Packages live for years and are named by digests: other bytes from a new release would orphan them all."""
    digest = hashlib.sha256(pack(MEMBERS)).hexdigest()
    assert digest == "a6868eae08794affcdaad58d77799d1189dc0526fb6a166ac466633e9df87428"


def test_every_flipped_bit_is_refused() -> None:
    data = pack(MEMBERS)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            refused(bytes(flipped))


def test_a_damaged_member_is_named() -> None:
    assert "two.bin is damaged" in refused(pack(MEMBERS).replace(b"\x10\x11\x12", b"\x10\x11\x13"))


def test_every_shortening_and_anything_before_or_behind_is_refused() -> None:
    data = pack(MEMBERS)
    for length in range(len(data)):
        refused(data[:length])
    refused(data + b"\x00")
    refused(b"\x00" + data)
    refused(data + data)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "A",
        "a b",
        ".",
        "..",
        ".a",
        "a.",
        "a..b",
        "",
        "a\x00b",
        "a\n",
        "ä",
    ],
)
def test_unsuitable_names_are_refused(name: str) -> None:
    assert "unsuitable name" in refused(pack({name: b"x"}))
    if name and "\x00" not in name:  # zipfile itself cuts names there
        assert "unsuitable name" in refused(zipped([(name, b"x")]))


def test_compressed_members_are_refused_unopened() -> None:
    bomb = zipped([("one.json", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    start = time.process_time()
    assert "compressed" in refused(bomb)
    assert time.process_time() - start < 1


def test_members_twice_are_refused() -> None:
    assert "one.json twice" in refused(zipped([("one.json", b"1"), ("one.json", b"2")]))


def test_floods_of_members_are_refused() -> None:
    assert "too many" in refused(zipped([(f"m{number}", b"") for number in range(1000)]))


def test_comments_dates_and_attributes_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"hidden"
        archive.writestr(zipfile.ZipInfo("one.json"), b"{}")
    assert "directory" in refused(buffer.getvalue())
    assert "directory" in refused(zipped([("one.json", b"{}")]))  # attributes of zipfile's own
    dated = bytearray(pack(MEMBERS))
    dated[12] ^= 1
    assert "header" in refused(bytes(dated))


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x1f\x8b", b"\x80\x04K\x01."])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    refused(data)


def test_a_size_beyond_the_file_is_refused() -> None:
    data = bytearray(pack({"a": b"x"}))
    data[18:22] = b"\xff\xff\xff\xff"
    assert "ends in the middle of a" in refused(bytes(data))
