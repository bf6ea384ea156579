"""A fleet through the real services: its student, labels as within the process, and reports that count."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("teacher_inference")

from device_sim.clouds import NearCloud
from device_sim.device_settings import DeviceSettings
from device_sim.fleet import install
from device_sim.models import shipped
from device_sim.service_cloud import serving_cloud
from device_sim.site import SiteSize, synthetic_site
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.cli import main
from tutelage.errors import CATALOGUE, Code
from tutelage.package import read_package

SIZE = SiteSize(persons=4, references=2, probes=1, strangers=1, days=1, attempts=3.0)


def test_devices_get_the_student_labels_and_reports_through_the_services(tmp_path: Path):
    models = shipped()
    near, site = NearCloud(models), synthetic_site(1, 0, SIZE, models.impostors)
    with serving_cloud(tmp_path / "services", models) as cloud:
        release = cloud.release(models)
        assert release.package == models.release.package
        post = install(site, tmp_path / "device", release, labeller=cloud.labeller(0), settings=DeviceSettings())
        attempts = [[attempt.tries(k) for k in range(3)] for attempt in site.attempts(0)]
        here = near.labeller(0)
        for person in site.persons:
            pairs = zip(site.references.persons, site.references.captures, strict=True)
            here.enrol(person, [capture for who, capture in pairs if who == person])
        there = post.device.labeller.label(attempts)
        assert len(there) >= 2
        for ours, theirs in zip(here.label(attempts), there, strict=True):
            assert (ours.person, ours.reason, ours.space) == (theirs.person, theirs.reason, theirs.space)
            assert ours.margin == pytest.approx(theirs.margin, abs=1e-4)
        cloud.check_in(post)
        digest = read_package(release.package, trusted=[release.trusted]).digest
        found = cloud._registry._ask(cloud._registry._stub.GetVersion, pb.GetVersionRequest(digest=digest))
        assert (found.devices, found.version.version) == (2, "v1")  # the one that installed it, and the one at the site
        post.close()


def test_images_are_refused_before_anything_is_started(tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--grpc", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ended.value.code == CATALOGUE[Code.USAGE].exit_code
    assert "--data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
