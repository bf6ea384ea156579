"""docs/grpcurl.md followed against a cluster: the same calls, through forwarded ports, with certificates.

The page has one process for three services, all of whose callers may do everything. What differs for that is told by
`Translation`; the answers must be those of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_jobs import store_variables
from helm_release import NAME, SMALL, Release
from kube import namespace
from source_tree import ROOT

from tutelage.settings import Address
from tutelage.tls import ClientTls

SERVICES = {"teacher": "teacher-inference", "distiller": "student-distiller", "registry": "model-registry"}
KEYS = {
    "distiller-data.key": "data.key",
    "distiller-seal.key": "fleet.key",
    "signer.pem": "signer.pem",
    "signer.pub": "signer.crt",
}
"""What `tutelage up` calls its keys: what the release calls them."""
EMPTY = {"firstRelease": {"enabled": False}, "devices": {"replicas": 0}}
"""As on the page, nobody has set the channel, and no device is there."""


@pytest.fixture(scope="module")
def fresh(cluster: str) -> Iterator[Release]:
    with namespace("tutelage-grpcurl") as place:
        release = Release(place, cluster)
        release.install({**SMALL, **EMPTY})
        yield release


def shown(proof: ClientTls) -> str:
    """A certificate, as grpcurl takes it."""
    return f"-cacert {proof.ca_file} -cert {proof.certificate_file} -key {proof.key_file}"


@dataclass(frozen=True)
class Translation:
    """How a command of the page is run against services of their own addresses."""

    addresses: Mapping[str, Address]
    """By the area of the API."""
    operator: ClientTls
    worker: ClientTls
    """The distiller's worker, to whom alone the teacher gives features."""

    def __call__(self, command: str) -> str:
        if "-plaintext" not in command:
            return command
        area = re.search(r"tutelage\.api\.(\w+)\.v1", command)
        if area is None:
            return ""  # lists what one process serves
        proof = self.worker if "ExtractFeatures" in command else self.operator
        spoken = command.replace("-plaintext", shown(proof))
        spoken = spoken.replace("localhost:50051", str(self.addresses[area[1]]))
        # Whoever shows a certificate has a name, which the history of a channel keeps.
        return re.sub(r"(/SetChannel|/ListChannelHistory)", r"""\1 | grep -v '"actor"'""", spoken)


@contextmanager
def forwarded(release: Release) -> Iterator[Translation]:
    """The three services, each at a port of this machine."""
    with ExitStack() as stack:
        addresses = {
            area: stack.enter_context(release.forwarded(f"service/{NAME}-{service}", 50_051))
            for area, service in SERVICES.items()
        }
        yield Translation(addresses, release.certificate(), release.certificate("distiller-worker"))


def test_the_page_can_be_followed_on_a_cluster(fresh: Release, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from followed_page import DOCS, Page, Served, differences, environment  # noqa: PLC0415 - the path is set here

    @contextmanager
    def serving(folder: Path) -> Iterator[Served]:
        keys = folder / "out/up/keys"
        keys.mkdir(parents=True)
        for name, key in KEYS.items():
            (keys / name).write_bytes(fresh.namespace.secret(f"{NAME}-keys")[key])
            (keys / name).chmod(0o600)
        with forwarded(fresh) as translation, fresh.forwarded(f"service/{NAME}-minio", 9000) as store:
            settings = store_variables(fresh, store, folder)
            yield Served(str(translation.addresses["registry"]), environment(DOCS=str(DOCS), **settings), translation)

    page = Page("grpcurl.md", "localhost:50051", "tutelage up", serving)
    text = (DOCS / page.name).read_text(encoding="utf-8")
    assert differences(text, page.followed(text)) == []
