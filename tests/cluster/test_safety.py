"""What a release lets nobody do: in the API, without the right certificate, across the network, and beyond its Pods."""

from __future__ import annotations

import copy
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from account_rights import allowed, rules
from certificates import Authority
from helm_release import NAME, Release
from kube import Namespace, namespace
from kubernetes.client.exceptions import ApiException
from redis.backoff import NoBackoff
from redis.retry import Retry
from tls_doors import admitted, admitted_with, answer_in_plain, trusting
from visitor_pods import manifest, reached, said, visitor

from device_sim.public import Public
from tutelage.api.device.v1 import device_pb2 as device_pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.captures import encode_png
from tutelage.errors import Code, TutelageError
from tutelage.settings import Address

DEVICE = f"{NAME}-device-0"
DOORS = {
    "teacher-inference": (f"service/{NAME}-teacher-inference", 50_051),
    "student-distiller": (f"service/{NAME}-student-distiller", 50_051),
    "model-registry": (f"service/{NAME}-model-registry", 50_051),
    "device": (DEVICE, 50_061),
}
SECONDS = 30
ONCE: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
"""A connection to Redis that is refused is not tried again."""
STORES = [f"{NAME}-redis:6379", f"{NAME}-minio:9000"]
SERVICES = [f"{NAME}-{part}:50051" for part in ("teacher-inference", "student-distiller", "model-registry")]
DEVICES = [f"{NAME}-device-0.{NAME}-device:50061"]
every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


# The API


def test_a_device_has_no_way_to_the_api_and_no_rights_there(release: Release):
    place = release.namespace
    pod = place.core.read_namespaced_pod(DEVICE, place.name)
    assert pod.spec.service_account_name == NAME
    assert [volume.name for volume in pod.spec.volumes if volume.projected] == [], "that is how tokens come in"
    assert said(place, DEVICE, "python", "-c", "import os; print(os.path.exists('/var/run/secrets'))") == "False\n"
    assert allowed(place, NAME) == set()
    assert rules(place, NAME) == rules(place, "nobody-at-all"), "what the API tells everybody, and no more"


def test_a_worker_whose_jobs_run_in_its_own_pod_has_no_rights_either(release: Release):
    place = release.namespace
    worker = f"{NAME}-distiller-worker"
    (pod,) = place.pods("distiller-worker")
    assert [volume.name for volume in pod.spec.volumes if volume.projected] == []
    assert rules(place, worker) == rules(place, "nobody-at-all")


# Certificates


@every_door
def test_who_shows_no_certificate_is_refused(release: Release, door: tuple[str, int]):
    proof = release.certificate()
    with release.forwarded(*door) as address:
        assert admitted_with(address, proof)
        assert not admitted(address, trusting(proof.ca_file))
        assert answer_in_plain(address) == b""


@every_door
def test_who_shows_a_certificate_of_another_authority_is_refused(
    release: Release, door: tuple[str, int], tmp_path: Path
):
    other = Authority("another").issue(tmp_path, f"{NAME}-operator")
    with release.forwarded(*door) as address:
        assert not admitted_with(address, release.certificate(), other)
        assert admitted_with(address, release.certificate())


async def test_a_device_may_read_the_registry_and_neither_publish_nor_set_a_channel(release: Release):
    service = f"service/{NAME}-model-registry"
    async with release.calling(service, who="device-sim") as channel:
        registry = ModelRegistryServiceStub(channel)
        known = (await registry.GetChannel(pb.GetChannelRequest(channel="stable"), timeout=SECONDS)).channel
        change = pb.SetChannelRequest(channel="stable", digest=known.version.digest, reason="a device wants it")
        with pytest.raises(TutelageError) as refused:
            await registry.SetChannel(change, timeout=SECONDS)
        assert refused.value.code == Code.CALLER_REFUSED
        header = pb.CreateVersionRequest(header=pb.UploadHeader(digest="0" * 64, file_digest="0" * 64, size_bytes=1))
        with pytest.raises(TutelageError) as refused:
            await registry.CreateVersion(iter([header]), timeout=SECONDS)
        assert refused.value.code == Code.CALLER_REFUSED


@pytest.mark.parametrize("who", ["device-sim", "distiller-worker"])
async def test_who_does_not_own_a_device_can_neither_enrol_nor_erase(release: Release, who: str):
    person = Public(persons=1, seed=11)
    captures = [encode_png(capture) for capture in person.references(0, 3)]
    enrol = device_pb.EnrolRequest(person=person.names[0], captures=captures)
    erase = device_pb.ErasePersonRequest(person=person.names[0])
    async with release.calling(DEVICE, 50_061, who=who) as channel:
        stranger = DeviceServiceStub(channel)
        for call, request in ((stranger.Enrol, enrol), (stranger.ErasePerson, erase)):
            with pytest.raises(TutelageError) as refused:
                await call(request, timeout=SECONDS)
            assert refused.value.code == Code.CALLER_REFUSED
    async with release.calling(DEVICE, 50_061) as channel:
        owner = DeviceServiceStub(channel)
        await owner.Enrol(enrol, timeout=SECONDS)
        await owner.ErasePerson(erase, timeout=SECONDS)


def test_redis_refuses_who_has_no_password_and_who_speaks_plain_text(release: Release):
    place, authority = release.namespace, str(release.certificate().ca_file)
    password = place.secret(f"{NAME}-redis")["password"].decode()
    with release.forwarded(f"{NAME}-redis-0", 6379) as address:

        def ping(**words: object) -> bool:
            with closing(redis.Redis("localhost", address.port, socket_timeout=SECONDS, **ONCE, **words)) as asked:
                return bool(asked.ping())

        assert ping(ssl=True, ssl_ca_certs=authority, password=password)
        with pytest.raises(redis.AuthenticationError, match="Authentication required"):
            ping(ssl=True, ssl_ca_certs=authority)
        with pytest.raises(redis.AuthenticationError, match="invalid username-password"):
            ping(ssl=True, ssl_ca_certs=authority, password="guessed")
        with pytest.raises(redis.ConnectionError):
            ping(password=password)


def test_minio_refuses_plain_http_and_who_does_not_sign(release: Release):
    with release.forwarded(f"{NAME}-minio-0", 9000) as address:
        assert _http_status(f"http://{address}/minio/health/live") == 400
        context = ssl.create_default_context(cafile=str(release.certificate().ca_file))
        assert _http_status(f"https://{address}/minio/health/live", context) == 200
        assert _http_status(f"https://{address}/tutelage/", context) == 403


def _http_status(url: str, context: ssl.SSLContext | None = None) -> int:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# The network


def pod_addresses(place: Namespace, component: str, port: int) -> list[str]:
    return [str(Address(pod.status.pod_ip, port)) for pod in place.pods(component)]


@pytest.fixture(scope="module")
def metrics(release: Release) -> list[str]:
    """Where each kind of Pod shows its metrics."""
    parts = ("teacher-inference", "label-worker", "student-distiller", "distiller-worker", "model-registry")
    found = [address for part in parts for address in pod_addresses(release.namespace, part, 9464)]
    return [*found, *pod_addresses(release.namespace, "device-sim", 9474)]


@pytest.fixture(scope="module")
def monitoring(cluster: str) -> Iterator[Namespace]:
    with namespace("monitoring") as made:
        yield made


def test_a_pod_that_belongs_to_nobody_reaches_nothing(release: Release, cluster: str, metrics: list[str]):
    with visitor(release.namespace, f"tutelage/model-registry:{cluster}", {}) as stranger:
        assert reached(release.namespace, stranger, [*STORES, *SERVICES, *DEVICES, *metrics]) == []


def test_a_device_reaches_teacher_and_registry_and_nothing_else(release: Release, metrics: list[str]):
    everything = [*STORES, *SERVICES, f"{NAME}-device-1.{NAME}-device:50061", *metrics, "kubernetes.default:443"]
    own = {str(Address(pod.status.pod_ip, 9474)) for pod in release.namespace.pods("device-sim")[:1]}
    assert set(reached(release.namespace, DEVICE, everything)) - own == {
        f"{NAME}-teacher-inference:50051",
        f"{NAME}-model-registry:50051",
    }


def test_metrics_are_for_the_monitoring_namespace(
    release: Release, cluster: str, metrics: list[str], monitoring: Namespace
):
    place = release.namespace
    services = [f"{where.replace(':', f'.{place.name}:')}" for where in (*STORES, *SERVICES)]
    with visitor(monitoring, f"tutelage/model-registry:{cluster}", {}) as collector:
        assert reached(monitoring, collector, [*metrics, *services]) == metrics


# Pods


def test_nothing_that_is_not_restricted_comes_in(release: Release, cluster: str):
    place = release.namespace
    asked = manifest("privileged", f"tutelage/model-registry:{cluster}", ("sleep", "1"), {})
    broken = copy.deepcopy(asked)
    broken["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    place.core.create_namespaced_pod(place.name, asked, dry_run="All")
    with pytest.raises(ApiException, match="violates PodSecurity") as refused:
        place.core.create_namespaced_pod(place.name, broken, dry_run="All")
    assert refused.value.status == 403


def test_nothing_of_the_release_was_refused(release: Release):
    place = release.namespace
    labels = place.core.read_namespace(place.name).metadata.labels
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    refused = place.core.list_namespaced_event(place.name, field_selector="reason=FailedCreate").items
    assert [event.message for event in refused if "PodSecurity" in event.message] == []
    for part in (*DOORS, "label-worker", "distiller-worker", "redis", "minio"):
        assert place.ready("device-sim" if part == "device" else part), part
