"""What the chart tells our programs: variables that they know and can read, files that their Pods mount."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pod_security import RULES
from rendered_chart import VALUES, component, name, objects, pods

from device_sim.node_settings import NodeProgram
from device_sim.rules_file import read_rules
from model_registry.service import PART as REGISTRY
from student_distiller.executors import Assignment
from student_distiller.kubernetes_manifest import KubernetesSettings, job_manifest
from student_distiller.service import PART as DISTILLER
from teacher_inference.service import PART as TEACHER
from tutelage.serving import ProgramSettings
from tutelage.settings import PREFIX, read_settings, settings_table

pytest.importorskip("yaml")

PARTS = {
    "teacher-inference": TEACHER,
    "label-worker": TEACHER,
    "student-distiller": DISTILLER,
    "distiller-worker": DISTILLER,
    "model-registry": REGISTRY,
}
FOLDER = "/etc/tutelage"
DELIVERY = Assignment(
    "0" * 32, "1" * 32, timedelta(0), processes=2, max_memory_bytes=None, time_left=timedelta(hours=1)
)
every_rendering = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def readers(of: str) -> Iterator[tuple[type, str]]:
    """The settings that the program of a component reads, each with the prefix of its variables."""
    if of == "device-sim":
        yield NodeProgram, PREFIX
    else:
        yield ProgramSettings, PREFIX
        yield PARTS[of].settings, PREFIX + PARTS[of].prefix


def configured(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Component, variables and Pod of each program of ours that serves."""
    config = {name(one): one["data"] for one in objects(values, "ConfigMap")}
    for of, template in pods(values):
        (container, *_) = template["spec"]["containers"]
        sources = [config[source["configMapRef"]["name"]] for source in container.get("envFrom", ())]
        if sources:
            fields = {entry["name"]: of for entry in container.get("env", ())}  # a Pod's own name, at most
            yield of, {**sources[0], **fields}, template["spec"]


def files(spec: dict[str, Any], values: dict[str, Any]) -> set[str]:
    """Paths of all that the first container of a Pod finds in the Secrets and ConfigMaps that it mounts."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    return {
        f"{mount['mountPath']}/{path}"
        for mount in spec["containers"][0]["volumeMounts"]
        for path in _held(volumes.get(mount["name"], {}), values)
    }


def _held(volume: dict[str, Any], values: dict[str, Any]) -> set[str]:
    """Paths within a volume of a Secret or a ConfigMap."""
    if "secret" in volume:
        source = volume["secret"]
        keys = _keys_of_secret(source["secretName"], values)
    elif "configMap" in volume:
        source = volume["configMap"]
        keys = next(set(one["data"]) for one in objects(values, "ConfigMap") if name(one) == source["name"])
    else:
        return set()
    wanted = {entry["key"]: entry["path"] for entry in source.get("items", ())}
    assert keys is None or set(wanted) <= keys, f"{volume['name']} has no {set(wanted) - keys}"
    return set(wanted.values()) or keys


def _keys_of_secret(secret: str, values: dict[str, Any]) -> set[str] | None:
    """Keys of a Secret; None where it is not the chart's, and may have any."""
    made = [set(one["data"]) for one in objects(values, "Secret") if name(one) == secret]
    if not made and secret.endswith("-tls"):
        return {"tls.crt", "tls.key", "ca.crt"}
    return made[0] if made else None


def here(variables: dict[str, str], mounted: set[str], folder: Path) -> dict[str, str]:
    """The variables where `folder` takes the place of a container's root, with the files that a Pod mounts."""
    for path in mounted:
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("content of a file that is mounted")
    return {name: value.replace(FOLDER, f"{folder}{FOLDER}") for name, value in variables.items()}


@every_rendering
def test_programs_know_every_variable_that_they_are_given(values: dict[str, Any]):
    checked = set()
    for of, variables, _ in configured(values):
        known = {v for kind, prefix in readers(of) for v in re.findall(r"\| `(\w+)`", settings_table(kind, prefix))}
        assert set(variables) <= known, f"{of} does not know {set(variables) - known}"
        checked.add(of)
    assert checked == {*PARTS, "device-sim"}


@every_rendering
def test_programs_can_read_what_they_are_given(values: dict[str, Any], tmp_path: Path):
    for of, variables, spec in configured(values):
        there = here(variables, files(spec, values), tmp_path / of)
        for kind, prefix in readers(of):
            assert read_settings(kind, there, prefix)


@every_rendering
def test_each_file_that_a_variable_names_is_mounted(values: dict[str, Any]):
    for of, variables, spec in configured(values):
        named = {path for value in variables.values() for path in value.split(",") if path.startswith(FOLDER)}
        assert named <= files(spec, values), f"{of} has no {named - files(spec, values)}"
        assert named, of


@every_rendering
def test_each_file_that_an_argument_names_is_mounted(values: dict[str, Any]):
    for of, template in pods(values):
        spec = template["spec"]
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            words = [*container.get("command", ()), *container.get("args", ())]
            words += [entry.get("value", "") for entry in container.get("env", ())]
            named = set(re.findall(rf"{FOLDER}/[\w./-]+", " ".join(words))) - {f"{FOLDER}/certificates"}
            seen = files({**spec, "containers": [container]}, values)
            assert named <= seen, f"{of} has no {named - seen}"


@every_rendering
def test_pods_mount_no_key_that_nobody_asks_for(values: dict[str, Any]):
    for of, variables, spec in configured(values):
        named = {path for value in variables.values() for path in value.split(",")}
        extra = {path for path in files(spec, values) - named if not path.startswith(f"{FOLDER}/tls/")}
        assert not extra, of


@pytest.mark.parametrize("values", [v for v in VALUES.values() if v.get("distillerWorker", {}).get("executor")])
def test_pods_of_jobs_find_all_files_and_are_restricted(values: dict[str, Any], tmp_path: Path):
    (variables,) = (variables for of, variables, _ in configured(values) if of == "distiller-worker")
    kubernetes = read_settings(KubernetesSettings, variables, "TUTELAGE_DISTILLER_KUBERNETES_").checked()
    job = job_manifest(DELIVERY, kubernetes, owner_uid="1-2-3", memory_bytes=1 << 30, device="cpu")
    spec = job["spec"]["template"]["spec"]
    assert [rule for rule, keeps in RULES.items() if not keeps(spec)] == []
    there = here(variables, files(spec, values), tmp_path)
    own = read_settings(DISTILLER.settings, there, PREFIX + DISTILLER.prefix)
    assert all(path.is_file() for path in (own.signer_file, own.seal_key_file, own.data_key_file))
    program = read_settings(ProgramSettings, there)
    assert program.stores.redis.password is not None
    assert all(path.is_file() for path in (program.stores.redis.ca_file, program.stores.objects.ca_file) if path)
    assert kubernetes.namespace == "somewhere"
    assert kubernetes.config_map in {name(one) for one in objects(values, "ConfigMap")}
    assert kubernetes.service in {name(one) for one in objects(values, "Service")}
    assert job["metadata"]["labels"]["app.kubernetes.io/instance"] == "tutelage"


def test_further_variables_come_after_the_charts_own():
    values = {"modelRegistry": {"env": {"TUTELAGE_REGISTRY_REFRESH_INTERVAL": 5, "TUTELAGE_LOG_LEVEL": "debug"}}}
    (data,) = (one["data"] for one in objects(values, "ConfigMap") if component(one) == "model-registry")
    assert (data["TUTELAGE_REGISTRY_REFRESH_INTERVAL"], data["TUTELAGE_LOG_LEVEL"]) == ("5", "debug")


@every_rendering
def test_devices_can_read_their_rules(values: dict[str, Any], tmp_path: Path):
    (rules,) = (one["data"] for one in objects(values, "ConfigMap") if name(one) == "tutelage-device-rules")
    (tmp_path / "rules.yaml").write_text(rules["rules.yaml"])
    assert read_rules(tmp_path / "rules.yaml")
