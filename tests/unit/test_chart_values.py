"""Values of the chart: the schema knows exactly those that there are, and says what is wrong with others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rendered_chart import CHART, RefusedError, text

yaml = pytest.importorskip("yaml")

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
FREE = {
    "global": "helm's own",
    "devices.rules": "the sections of device-sim/README.md, which devices check",
    "networkPolicies.clients": "peers, which Kubernetes checks",
    "networkPolicies.monitoring": "the same",
    "networkPolicies.apiServer.to": "the same",
    "tolerations": "Kubernetes checks them",
}
"""Where the schema leaves the inside to somebody else, and to whom."""
MAPS = {"labels", "nodeSelector", "podAnnotations", "env", "requests", "limits"}
"""Keys below which names are the user's own, and only the values have a type."""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return SCHEMA["definitions"][reference.removeprefix("#/definitions/")] if reference else schema


def keys_of_schema(schema: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and schema of each value that the schema names."""
    for key, raw in resolved(schema).get("properties", {}).items():
        inside = resolved(raw)
        yield f"{above}{key}", inside
        yield from keys_of_schema(inside, f"{above}{key}.")


def keys_of_values(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, dict) and key not in MAPS and f"{above}{key}" not in FREE:
            yield from keys_of_values(value, f"{above}{key}.")


def test_the_schema_names_exactly_the_values_that_there_are():
    named = {path for path, _ in keys_of_schema(SCHEMA)} - {"global"}
    assert named == set(keys_of_values(DEFAULTS))


def test_every_value_has_a_type_and_unknown_keys_are_refused_everywhere():
    assert SCHEMA["additionalProperties"] is False
    for path, schema in keys_of_schema(SCHEMA):
        assert "type" in schema or "enum" in schema, path
        if schema.get("type") == "object" and path not in FREE:
            kinds = schema.get("additionalProperties")
            assert kinds is False or (path.rpartition(".")[2] in MAPS and "type" in kinds), path
        if schema.get("type") == "array" and path not in FREE:
            assert {"type"} <= set(resolved(schema["items"])), path
    assert set(FREE) <= {path for path, _ in keys_of_schema(SCHEMA)}


@pytest.mark.parametrize(
    ("values", "place", "reason"),
    [
        ({"device": {"replicas": 3}}, "", "additional properties 'device' not allowed"),
        ({"devices": {"replica": 3}}, "/devices", "additional properties 'replica' not allowed"),
        ({"redis": {"external": {"adress": "a:1"}}}, "/redis/external", "additional properties 'adress' not allowed"),
        ({"devices": {"replicas": "three"}}, "/devices/replicas", "got string, want integer"),
        ({"devices": {"replicas": -1}}, "/devices/replicas", "minimum: got -1, want 0"),
        ({"tls": {"enabled": "yes"}}, "/tls/enabled", "got string, want boolean"),
        ({"tls": {"source": "vault"}}, "/tls/source", "value must be one of 'generated', 'cert-manager', 'secrets'"),
        ({"teacher": {"backend": "triton"}}, "/teacher/backend", "one of 'torchserve', 'in-process', 'oip'"),
        ({"teacher": {"backend": "oip"}}, "/teacher/oip/address", "minLength: got 0, want 1"),
        ({"redis": {"builtIn": False}}, "/redis/external/address", "minLength: got 0, want 1"),
        ({"minio": {"builtIn": False}}, "/minio/external/existingSecret", "minLength: got 0, want 1"),
        ({"traces": {"enabled": True}}, "/traces/address", "minLength: got 0, want 1"),
        ({"traces": {"address": "http://a:1"}}, "/traces/address", "does not match pattern"),
        ({"distillerWorker": {"executor": "slurm"}}, "/distillerWorker/executor", "one of 'local', 'kubernetes'"),
        ({"logLevel": "loud"}, "/logLevel", "value must be one of 'debug', 'info', 'warning', 'error'"),
        ({"modelRegistry": {"env": {"PATH": "/x"}}}, "/modelRegistry/env", "additional properties 'PATH' not allowed"),
        ({"minio": {"persistence": {"size": "lots"}}}, "/minio/persistence/size", "does not match pattern"),
        ({"devices": {"channel": "a b"}}, "/devices/channel", "does not match pattern"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_their_place_and_the_reason(values: dict[str, Any], place: str, reason: str):
    with pytest.raises(RefusedError) as refused:
        text(values)
    said = str(refused.value)
    assert "values don't meet the specifications of the schema" in said
    assert re.search(rf"- at '{place}': .*{re.escape(reason)}", said), said
