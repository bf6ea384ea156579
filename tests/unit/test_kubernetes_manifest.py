"""The Job of a delivery: the restricted Pod Security Standard rule by rule, no secrets, names, resources, commands."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pod_security import RULES

from student_distiller.executors import STOP_GRACE, Assignment
from student_distiller.kubernetes_manifest import (
    PORT,
    STARTER_BYTES,
    KubernetesSettings,
    job_labels,
    job_manifest,
    job_name,
    selector,
)
from tutelage.errors import SettingsError
from tutelage.settings import read_settings

GIB = 1 << 30
SETTINGS = KubernetesSettings(namespace="jobs", image="registry.example/student-distiller:1")
SEVERAL = Assignment(
    job_id="0123456789abcdef" * 2,
    holder="fedcba9876543210" * 2,
    spent=timedelta(seconds=12.5),
    processes=3,
    max_memory_bytes=2 * GIB,
    time_left=timedelta(seconds=99.2),
)
ALONE = replace(SEVERAL, processes=1, max_memory_bytes=None)


def made(
    assignment: Assignment = SEVERAL, settings: KubernetesSettings = SETTINGS, device: str = "cpu"
) -> dict[str, Any]:
    return job_manifest(assignment, settings, owner_uid="1-2-3", memory_bytes=4 * GIB, device=device)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(job)["containers"]
    return container


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("assignment", [ALONE, SEVERAL], ids=["one", "several"])
def test_pods_keep_the_restricted_pod_security_standard(rule: str, assignment: Assignment):
    assert RULES[rule](pod_of(made(assignment)))


@pytest.mark.parametrize(
    ("rule", "place", "value"),
    [
        ("no host namespaces", "hostPID", True),
        ("not privileged", "containers.0.securityContext.privileged", True),
        ("all capabilities dropped", "containers.0.securityContext.capabilities", {}),
        ("no capability added", "containers.0.securityContext.capabilities.add", ["NET_RAW"]),
        ("volumes of allowed kinds", "volumes.0.hostPath", {"path": "/"}),
        ("no host ports", "containers.0.ports", [{"hostPort": 1}]),
        ("no escalation", "containers.0.securityContext.allowPrivilegeEscalation", True),
        ("not root", "securityContext.runAsNonRoot", False),
        ("not user 0", "securityContext.runAsUser", 0),
        ("seccomp", "securityContext.seccompProfile", {"type": "Unconfined"}),
        ("no sysctls", "securityContext.sysctls", [{"name": "kernel.msgmax"}]),
        ("no proc mount", "containers.0.securityContext.procMount", "Unmasked"),
        ("no SELinux or AppArmor of its own", "securityContext.appArmorProfile", {"type": "Unconfined"}),
    ],
)
def test_a_pod_that_broke_a_rule_would_be_noticed(rule: str, place: str, value: Any):
    broken: Any = copy.deepcopy(pod_of(made()))
    thing, *keys = broken, *place.split(".")
    for key in keys[:-1]:
        thing = thing[int(key)] if isinstance(thing, list) else thing[key]
    thing[keys[-1]] = value
    assert not RULES[rule](broken)


def test_beyond_the_standard_pods_have_no_token_no_service_links_and_one_place_to_write():
    pod = pod_of(made())
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    container = container_of(made())
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["scratch"]
    (scratch,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "scratch"]
    assert scratch == {"sizeLimit": str(4 * GIB)}


def test_secrets_are_named_and_never_written_out():
    job = made(settings=replace(SETTINGS, secrets=("keys", "redis"), config_map="variables"))
    assert container_of(job)["envFrom"] == [{"configMapRef": {"name": "variables"}}]
    folders = {mount["name"]: mount["mountPath"] for mount in container_of(job)["volumeMounts"]}
    found = {folders[v["name"]]: v["secret"] for v in pod_of(job)["volumes"] if "secret" in v}
    assert found == {
        f"/etc/tutelage/secrets/{name}": {"secretName": name, "defaultMode": 0o440} for name in ("keys", "redis")
    }
    values = {entry["name"]: entry["value"] for entry in container_of(job)["env"]}
    assert set(values) == {"OMP_NUM_THREADS", "HOME", "TMPDIR", "TUTELAGE_DISTILLER_SCRATCH"}
    assert not any(re.search(r"key|secret|password|token", name, re.IGNORECASE) for name in values)


def test_single_keys_of_a_secret_are_all_that_a_pod_sees_of_it():
    job = made(settings=replace(SETTINGS, secrets=("keys/signer.pem", "redis", "keys/data.key")))
    assert [volume["secret"].get("items") for volume in pod_of(job)["volumes"] if "secret" in volume] == [
        [{"key": "signer.pem", "path": "signer.pem"}, {"key": "data.key", "path": "data.key"}],
        None,
    ]


def test_it_is_an_indexed_job_that_fails_as_a_whole_and_ends_by_itself():
    spec = made()["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert spec["backoffLimit"] == 0
    assert "backoffLimitPerIndex" not in spec
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    assert spec["activeDeadlineSeconds"] == 100  # 99.2 s are left
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert pod_of(made())["restartPolicy"] == "Never"  # which a podFailurePolicy asks for
    assert pod_of(made())["terminationGracePeriodSeconds"] >= STOP_GRACE.total_seconds()


def test_its_name_is_that_of_the_delivery_and_fits_the_names_of_its_pods():
    name = job_name(SEVERAL)
    assert name == f"distill-{SEVERAL.job_id}-fedcba98"
    assert made()["metadata"]["name"] == name
    assert job_name(replace(SEVERAL, processes=1)) == name
    assert job_name(replace(SEVERAL, holder="0" * 32)) != name
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", f"{name}-63")
    assert len(f"{name}-63") <= 63


def test_job_and_pods_bear_labels_that_the_selector_finds():
    labels = job_labels(SEVERAL, replace(SETTINGS, labels=("app.kubernetes.io/instance=door",)))
    assert labels["app.kubernetes.io/instance"] == "door"
    labels = job_labels(SEVERAL, SETTINGS)
    assert made()["metadata"]["labels"] == made()["spec"]["template"]["metadata"]["labels"] == labels
    for text in (selector(SEVERAL.job_id), selector(SEVERAL.job_id, SEVERAL.holder)):
        wanted = dict(part.split("=") for part in text.split(","))
        assert wanted.items() <= labels.items()
    assert SEVERAL.holder not in selector(SEVERAL.job_id)
    assert all(re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value) for value in labels.values())


def test_it_goes_with_the_config_map_of_its_service():
    assert made()["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "student-distiller", "uid": "1-2-3"}
    ]


def test_one_process_works_by_itself():
    command = container_of(made(ALONE))["command"]
    assert command == ["python", "-m", "student_distiller", "work-on", ALONE.job_id, ALONE.holder, "12.500"]


def test_several_find_the_first_one_by_its_name_in_the_headless_service():
    job = made(settings=replace(SETTINGS, service="meeting", start_within=timedelta(minutes=5)))
    command = container_of(job)["command"]
    assert command[:3] == ["python", "-m", "torch.distributed.run"]
    assert command[-6:] == ["-m", "student_distiller", "work-on", SEVERAL.job_id, SEVERAL.holder, "12.500"]
    options = dict(word.removeprefix("--").split("=", 1) for word in command[3:-6])
    assert options == {
        "nnodes": "3",
        "node-rank": "$(JOB_COMPLETION_INDEX)",
        "nproc-per-node": "1",
        "max-restarts": "0",
        "master-addr": f"{job_name(SEVERAL)}-0.meeting",
        "master-port": str(PORT),
        "rdzv-conf": "timeout=360",
    }
    assert pod_of(job)["subdomain"] == "meeting"


def test_torchrun_knows_these_options():
    run = pytest.importorskip("torch.distributed.run")
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "2") for word in container_of(made())["command"][3:]]
    known = run.get_args_parser().parse_args(words)
    assert (known.nnodes, known.node_rank, known.nproc_per_node, known.max_restarts) == ("3", 2, "1", 0)
    assert (known.master_addr, known.master_port) == (f"{job_name(SEVERAL)}-0.distillations", PORT)
    assert (known.module, known.training_script) == (True, "student_distiller")
    assert known.training_script_args == ["work-on", SEVERAL.job_id, SEVERAL.holder, "12.500"]


def test_memory_is_that_of_the_budget_else_the_executors_and_torchrun_comes_on_top():
    several, alone = (container_of(made(a))["resources"] for a in (SEVERAL, ALONE))
    assert several["limits"]["memory"] == several["requests"]["memory"] == str(2 * GIB + STARTER_BYTES)
    assert alone["limits"]["memory"] == alone["requests"]["memory"] == str(4 * GIB)


def test_cores_gpus_and_nodes_are_as_set():
    settings = replace(SETTINGS, cpu=2.5, node_selector=("pool=gpu", "zone=a"))
    job = made(settings=settings, device="cuda")
    resources = container_of(job)["resources"]
    assert resources["requests"]["cpu"] == "2500m"
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in container_of(job)["env"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
    assert pod_of(job)["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert "nvidia.com/gpu" not in container_of(made(device="auto"))["resources"]["limits"]


def test_nothing_of_the_manifest_is_unknown_to_the_official_client():
    client = pytest.importorskip("kubernetes.aio.client")
    for job in (made(), made(ALONE, device="cuda")):
        model = client.V1Job.model_validate(job)
        assert model.model_dump(by_alias=True, exclude_none=True) == job
        assert json.loads(json.dumps(job)) == job


def test_settings_need_an_image_and_labels_of_nodes():
    assert SETTINGS.checked() is SETTINGS
    with pytest.raises(SettingsError, match="TUTELAGE_DISTILLER_KUBERNETES_IMAGE"):
        KubernetesSettings().checked()
    with pytest.raises(SettingsError, match="node_selector takes key=value"):
        read_settings(KubernetesSettings, {"T_NODE_SELECTOR": "gpu"}, "T_")
