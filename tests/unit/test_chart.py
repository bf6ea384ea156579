"""What the chart renders: objects that Kubernetes knows, restricted Pods, no secrets in sight, policies that fit."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from pod_security import RULES, containers
from rendered_chart import STORE, VALUES, claims, component, name, objects, pods, text

pytest.importorskip("yaml")

WORKER = "distiller-worker"
BUILT_IN = {"redis", "minio"}
CUSTOM = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1", "cert-manager.io/v1"}
every_rendering = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


@every_rendering
def test_the_official_client_knows_every_field(values: dict[str, Any]):
    client = pytest.importorskip("kubernetes.aio.client")
    for one in objects(values):
        group, _, version = one["apiVersion"].rpartition("/")
        if one["apiVersion"] in CUSTOM:
            assert set(one) == {"apiVersion", "kind", "metadata", "spec"}
            continue
        model = getattr(client, f"{version.upper()}{one['kind']}")
        assert model.model_validate(one).kind == one["kind"], group  # an unknown field or a wrong type raises


@every_rendering
def test_no_two_objects_are_the_same_one(values: dict[str, Any]):
    known = [(one["apiVersion"].partition("/")[0], one["kind"], name(one)) for one in objects(values)]
    assert len(known) == len(set(known))


@every_rendering
def test_two_releases_in_one_namespace_share_nothing(values: dict[str, Any]):
    fast = {**values, "tls": {**values.get("tls", {}), "source": values.get("tls", {}).get("source", "secrets")}}
    one, other = ({(o["kind"], name(o)) for o in objects(fast, release=release)} for release in ("here", "there"))
    assert one.isdisjoint(other)
    for kind in ("Deployment", "StatefulSet", "NetworkPolicy", "Service", "PodDisruptionBudget"):
        for found in objects(fast, kind, release="here"):
            assert _selector(found)["app.kubernetes.io/instance"] == "here"


@pytest.mark.parametrize("store", sorted(BUILT_IN))
def test_a_store_that_is_yours_leaves_nothing_of_its_own_here(store: str):
    values = {store: {"builtIn": False, "external": STORE}}
    assert {name(one) for one in objects({}) if store in name(one)} >= {f"tutelage-{store}", f"tutelage-{store}-tls"}
    assert [name(one) for one in objects(values) if store in name(one)] == []


@pytest.mark.parametrize("rule", RULES)
@every_rendering
def test_each_pod_keeps_the_restricted_pod_security_standard(rule: str, values: dict[str, Any]):
    broken = [of for of, template in pods(values) if not RULES[rule](template["spec"])]
    assert not broken


@every_rendering
def test_each_container_has_a_read_only_root_limits_and_requests(values: dict[str, Any]):
    for of, template in pods(values):
        for container in containers(template["spec"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, of
            assert "memory" in container["resources"]["limits"], of
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), of
            _fits(container["resources"])


def _fits(resources: dict[str, Any]) -> None:
    asked, most = (_bytes(resources[part]["memory"]) for part in ("requests", "limits"))
    assert asked <= most


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) << {"Mi": 20, "Gi": 30}[unit]


@every_rendering
def test_only_a_worker_that_makes_jobs_has_a_token_and_a_role(values: dict[str, Any]):
    makes_jobs = values.get("distillerWorker", {}).get("executor") == "kubernetes"
    for of, template in pods(values):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is (of == WORKER and makes_jobs), of
        assert spec["enableServiceLinks"] is False, of
        assert spec["serviceAccountName"] == ("tutelage-distiller-worker" if of == WORKER else "tutelage"), of
    accounts = {name(one): one["automountServiceAccountToken"] for one in objects(values, "ServiceAccount")}
    assert accounts == {"tutelage": False, "tutelage-distiller-worker": False}
    assert len(objects(values, "Role")) == len(objects(values, "RoleBinding")) == int(makes_jobs)
    assert not objects(values, "ClusterRole", "ClusterRoleBinding")
    for binding in objects(values, "RoleBinding"):
        assert [subject["name"] for subject in binding["subjects"]] == ["tutelage-distiller-worker"]


@every_rendering
def test_what_is_secret_stands_in_secrets_alone(values: dict[str, Any]):
    secrets = [one.get("data", {}) for one in objects(values, "Secret")]
    hidden = [
        base64.b64decode(held).decode().strip() for data in secrets for key, held in data.items() if _private(key)
    ]
    assert len(hidden) >= (4 if not values.get("keys") else 0)
    others = str([one for one in objects(values) if one["kind"] != "Secret"])
    for value in hidden:
        assert value not in others
        assert base64.b64encode(value.encode()).decode() not in others
    for of, template in pods(values):
        for container in containers(template["spec"]):
            assert not any("secretKeyRef" in entry.get("valueFrom", {}) for entry in container.get("env", ())), of


def _private(key: str) -> bool:
    """Names of accounts are no secret, nor are certificates."""
    return not key.endswith(".crt") and key != "access-key"


@every_rendering
def test_each_probe_asks_a_port_that_its_container_has(values: dict[str, Any]):
    for of, template in pods(values):
        for container in containers(template["spec"]):
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
            for probe in (container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")):
                assert _asked(probe, ports) in {None, *ports.values()}, of
            if of not in {"first-release", "smoke"}:
                assert "livenessProbe" in container, of


def _asked(probe: dict[str, Any] | None, ports: dict[str, int]) -> int | None:
    """The number of the port that a probe asks; None where it asks none."""
    for way in ("grpc", "tcpSocket", "httpGet"):
        if probe and way in probe:
            port = probe[way]["port"]
            return ports[port] if isinstance(port, str) else port
    return None


@every_rendering
def test_ports_of_programs_are_those_of_their_variables(values: dict[str, Any]):
    config = {name(one): one["data"] for one in objects(values, "ConfigMap")}
    for of, template in pods(values):
        for container in template["spec"]["containers"]:
            for source in container.get("envFrom", ()):
                variables = config[source["configMapRef"]["name"]]
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                for port, variable in PORTS.items():
                    if port in ports or port != "grpc":
                        assert variables[variable] == f"0.0.0.0:{ports[port]}", of


PORTS = {
    "grpc": "TUTELAGE_SERVER_ADDRESS",
    "probes": "TUTELAGE_SERVER_PROBE_ADDRESS",
    "metrics": "TUTELAGE_METRICS_ADDRESS",
}


def test_a_newer_chart_alone_restarts_nothing():
    for of, template in pods(VALUES["the defaults"]):
        if of != "smoke":  # made anew each time
            labels = set(template["metadata"]["labels"])
            assert labels.isdisjoint({"helm.sh/chart", "app.kubernetes.io/version"}), of


@every_rendering
def test_each_selector_finds_the_pods_that_it_is_for(values: dict[str, Any]):
    labels = [template["metadata"]["labels"] for _, template in pods(values)]
    for one in objects(values, "Deployment", "StatefulSet"):
        assert _selector(one).items() <= one["spec"]["template"]["metadata"]["labels"].items()
        found = [found for found in labels if _selector(one).items() <= found.items()]
        assert len(found) == 1, "no Pod answers to two owners"
    for one in objects(values, "Service", "PodDisruptionBudget"):
        found = [found for found in labels if _selector(one).items() <= found.items()]
        of_jobs = one["spec"].get("selector", {}).get("app.kubernetes.io/component") == "distillation"
        assert len(found) == (0 if of_jobs else 1), name(one)


def _selector(one: dict[str, Any]) -> dict[str, str]:
    selector = one["spec"].get("podSelector") or one["spec"]["selector"]
    return selector.get("matchLabels", selector)


@every_rendering
def test_services_lead_to_ports_that_their_pods_have(values: dict[str, Any]):
    for one in objects(values, "Service"):
        for of, template in pods(values):
            if of == _selector(one)["app.kubernetes.io/component"]:
                names = {p["name"]: p["containerPort"] for c in template["spec"]["containers"] for p in c["ports"]}
                assert all(names[p["targetPort"]] == p["port"] for p in one["spec"]["ports"]), name(one)


@every_rendering
def test_what_scales_exists_and_has_no_number_of_its_own(values: dict[str, Any]):
    deployments = {name(one): one["spec"] for one in objects(values, "Deployment")}
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in objects(values, "HorizontalPodAutoscaler", "ScaledObject")
    }
    assert scaled <= set(deployments)
    assert {of for of, spec in deployments.items() if "replicas" not in spec} == scaled


@every_rendering
def test_policies_speak_of_components_that_there_are_and_of_their_ports(values: dict[str, Any]):
    ports = {of: _ports(template) for of, template in pods(values)}
    if values.get("distillerWorker", {}).get("executor") == "kubernetes":
        ports["distillation"] = set()  # a worker makes its Pods
    for one in objects(values, "NetworkPolicy"):
        assert one["spec"]["policyTypes"] == ["Ingress", "Egress"]
        here = _selector(one).get("app.kubernetes.io/component")
        assert here in {None, *ports}
        for way in ("ingress", "egress"):
            for rule in one["spec"].get(way) or ():
                for to in _components(rule.get("from", []) + rule.get("to", [])):
                    assert to in ports, name(one)
                    there = ports[here if way == "ingress" else to]
                    assert {port["port"] for port in rule.get("ports", ())} <= there, name(one)


@every_rendering
def test_every_pod_is_under_a_policy_of_its_own(values: dict[str, Any]):
    if values.get("networkPolicies", {}).get("enabled", True):
        selected = [_selector(one) for one in objects(values, "NetworkPolicy")]
        for of, template in pods(values):
            covering = [one for one in selected if one.items() <= template["metadata"]["labels"].items()]
            assert len(covering) == 2, f"{of}: what holds for all, and its own"
    else:
        assert not objects(values, "NetworkPolicy")


def _components(peers: list[dict[str, Any]]) -> list[str]:
    labels = [peer.get("podSelector", {}).get("matchLabels", {}) for peer in peers]
    return [found["app.kubernetes.io/component"] for found in labels if "app.kubernetes.io/component" in found]


def _ports(template: dict[str, Any]) -> set[int]:
    return {p["containerPort"] for c in template["spec"]["containers"] for p in c.get("ports", ())}


@every_rendering
def test_volumes_are_all_mounted_and_mounts_all_have_volumes(values: dict[str, Any]):
    for of, template in pods(values):
        spec = template["spec"]
        there = [volume["name"] for volume in spec.get("volumes", ())] + claims(values).get(of, [])
        mounted = {mount["name"] for one in containers(spec) for mount in one.get("volumeMounts", ())}
        assert len(there) == len(set(there)), of
        assert set(there) == mounted, of


@every_rendering
def test_images_are_named_whole_and_pulled_as_said(values: dict[str, Any]):
    prefix = values.get("image", {}).get("prefix", "tutelage/")
    for of, template in pods(values):
        for container in containers(template["spec"]):
            assert re.fullmatch(r"[a-z0-9./-]+:[A-Za-z0-9._-]+", container["image"]), of
            assert container["imagePullPolicy"] == "IfNotPresent", of
            assert of in BUILT_IN or container["image"].startswith(prefix), of


def test_the_notes_and_hooks_are_not_forgotten():
    assert "helm.sh/hook: test" in text({})
    assert {component(one) for one in objects({}, "Pod")} == {"smoke"}
