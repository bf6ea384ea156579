"""What skaffold asks of the chart: single images by their whole references, and roots that can be written."""

from __future__ import annotations

import pytest
from rendered_chart import RefusedError, component, objects, pods, text

pytest.importorskip("yaml")

REFERENCE = "registry.example/registry:1@sha256:" + 64 * "a"
SERVERS = {"teacher-inference", "label-worker", "student-distiller", "distiller-worker", "model-registry", "device-sim"}


def writable(values: dict) -> set[str]:
    """Components with a container whose root file system may be written."""
    containers = ((part, c) for part, pod in pods(values) for c in _containers(pod["spec"]))
    return {part for part, container in containers if not container["securityContext"]["readOnlyRootFilesystem"]}


def _containers(spec: dict) -> list[dict]:
    return [*spec["containers"], *spec.get("initContainers", ())]


def test_an_image_named_whole_stands_in_the_place_of_its_name_and_tag():
    values = {"image": {"tag": "1.2.3", "overrides": {"model-registry": REFERENCE}}}
    images = {part: pod["spec"]["containers"][0]["image"] for part, pod in pods(values)}
    assert images["model-registry"] == REFERENCE
    assert images["student-distiller"] == "tutelage/student-distiller:1.2.3"


def test_jobs_of_the_cluster_run_the_image_named_whole():
    values = {"image": {"overrides": {"student-distiller": REFERENCE}}, "distillerWorker": {"executor": "kubernetes"}}
    worker = [one for one in objects(values, "ConfigMap") if component(one) == "distiller-worker"]
    assert worker[0]["data"]["TUTELAGE_DISTILLER_KUBERNETES_IMAGE"] == REFERENCE


def test_an_image_that_there_is_not_is_refused():
    with pytest.raises(RefusedError, match=r"/image/overrides': additional properties 'registry' not allowed"):
        text({"image": {"overrides": {"registry": REFERENCE}}})


def test_development_lets_our_servers_write_and_nobody_else():
    assert writable({}) == set()
    assert writable({"development": {"enabled": True}}) == SERVERS


def test_torchserve_keeps_its_root_in_development():
    spec = next(pod["spec"] for part, pod in pods({"development": {"enabled": True}}) if part == "teacher-inference")
    aside = {c["name"]: c["securityContext"]["readOnlyRootFilesystem"] for c in spec["initContainers"]}
    assert aside == {"torchserve": True}
