"""`tutelage device`: a real device is asked from a shell, for people and for programs; and what to do if that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("grpc")

import shipped_device
from certificates import Authority
from device_node import node, node_settings, png
from toy_device import PERSONS, name_of

from tutelage.errors import CATALOGUE, Code
from tutelage.settings import Address
from tutelage.tls import ServerTls


async def tutelage(*words: object) -> tuple[int, str, str]:
    """Status, output and errors of a command that asks a device, while this process serves."""
    return await shipped_device.tutelage("device", *words)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for person in range(PERSONS):
        (folder / name_of(person)).mkdir(parents=True)
        for press in range(3):
            (folder / name_of(person) / f"{press}.png").write_bytes(png(person, press))
    for press in range(3):
        (folder / f"strange-{press}.png").write_bytes(png(77, press))
    return folder


async def test_a_device_is_asked_from_a_shell(tmp_path: Path, pictures: Path):
    async with node(node_settings(tmp_path / "device")) as running:
        where = ("--address", f"127.0.0.1:{running.port}")
        for person in (0, 1):
            status, out, err = await tutelage(
                "enrol", name_of(person), *(pictures / name_of(person) / f"{press}.png" for press in (0, 1)), *where
            )
            assert (status, out, err) == (0, "enrolled; references of this person: 2\n", "")
        _, out, _ = await tutelage("recognise", pictures / name_of(1) / "2.png", *where)
        assert "accept" in out
        assert name_of(1) in out
        strangers = [pictures / f"strange-{press}.png" for press in range(3)]
        _, out, _ = await tutelage("recognise", *strangers, "--attempt", "visit", "--json", *where)
        answers = [json.loads(line) for line in out.splitlines()]
        assert [answer["recognition"]["decision"] for answer in answers] != ["DECISION_ACCEPT"] * 3
        _, out, _ = await tutelage("verify", name_of(1), pictures / name_of(1) / "2.png", *where)
        assert out.startswith("accept: score ")
        _, out, _ = await tutelage("status", *where)
        for words in ("student", "v1", "persons", "labels wait for", "no teacher is set", "training waits for"):
            assert words in out
        _, out, _ = await tutelage("status", "--json", *where)
        told = json.loads(out)["status"]
        assert (told["persons"], told["student"]["generation"]) == (2, "v1")
        _, out, _ = await tutelage("samples", "--kind", "second", "--json", *where)
        for sample in json.loads(out).get("samples", []):
            _, why, _ = await tutelage("explain", sample["sample_id"], *where)
            assert "kept as a second sample" in why
        _, out, _ = await tutelage("samples", *where)
        assert "sample" in out
        _, out, _ = await tutelage("train", *where)
        assert out.startswith("no training was started; it waits for\n  ")
        _, out, _ = await tutelage("events", "--json", *where)
        kinds = [json.loads(line)["kind"] for line in out.splitlines()]
        assert kinds[:3] == ["EVENT_KIND_RELEASE_INSTALLED", "EVENT_KIND_ENROLLED", "EVENT_KIND_ENROLLED"]
        _, out, _ = await tutelage("events", "--kind", "enrolled", "--after", 2, *where)
        assert len(out.splitlines()) == 1
        status, out, _ = await tutelage("erase", name_of(1), "--yes", "--receipt", tmp_path / "receipt.json", *where)
        assert (status, "receipt" in out) == (0, True)
        assert name_of(1) not in (tmp_path / "receipt.json").read_text()
        status, _, err = await tutelage("verify", name_of(1), pictures / name_of(1) / "2.png", *where)
        assert status == CATALOGUE[Code.PERSON_UNKNOWN].exit_code
        assert err == f"error [person-unknown]: person '{name_of(1)}' is not enrolled: enrol first, or check the name\n"


async def test_what_cannot_be_done_ends_in_one_line_that_says_what_to_do(tmp_path: Path, pictures: Path):
    async with node(node_settings(tmp_path / "device")) as running:
        where = ("--address", f"127.0.0.1:{running.port}")
        (tmp_path / "text.png").write_text("no picture")
        for words, code in (
            (("explain", 7), Code.SAMPLE_UNKNOWN),
            (("rollback", "--reason", "a test"), Code.STUDENT_MISSING),
            (("rollback", "--reason", " "), Code.REQUEST_INVALID),
            (("recognise", tmp_path / "text.png"), Code.IMAGE_UNREADABLE),
            (("samples", "--state", "rotten"), Code.USAGE),
            (("events", "--kind", "party"), Code.USAGE),
            (("erase", "nobody", "--yes"), Code.PERSON_UNKNOWN),
            (("status", "--ca-file", tmp_path / "none.pem"), Code.SETTING_INVALID),
            (("status", "--key-file", tmp_path / "none.pem"), Code.SETTING_INVALID),
        ):
            status, out, err = await tutelage(*words, *where)
            assert (status, out) == (CATALOGUE[code].exit_code, ""), (words, err)
            assert err.startswith(f"error [{code}]: "), err
            assert err.count("\n") == 1
        status, _, err = await tutelage("erase", "nobody", *where)  # nobody there to say yes
        assert status == 1
    status, _, err = await tutelage("status", *where)
    assert status == CATALOGUE[Code.SERVICE_UNAVAILABLE].exit_code
    assert "start one with `python -m device_sim`" in err


async def test_a_device_that_wants_certificates_is_called_with_them(tmp_path: Path):
    authority = Authority("ours")
    ca = authority.write(tmp_path / "ca.pem")
    certificate, key = authority.issue(tmp_path, "device")
    own, own_key = authority.issue(tmp_path, "owner")
    tls = ServerTls(certificate, key, ca)
    async with node(node_settings(tmp_path / "device"), tls=tls, address=Address("localhost", 0)) as running:
        where = ("--address", f"localhost:{running.port}")
        proof = ("--ca-file", ca, "--certificate-file", own, "--key-file", own_key)
        status, out, err = await tutelage("status", *where, *proof)
        assert (status, "v1" in out) == (0, True), err
        status, _, err = await tutelage("status", *where, "--ca-file", ca, "--timeout", 2)
        assert status == CATALOGUE[Code.SERVICE_UNAVAILABLE].exit_code
        assert "check --tls, --ca-file" in err
