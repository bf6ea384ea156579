"""What a service account may do in the API, as the API server itself judges it."""

from __future__ import annotations

from kube import Namespace
from kubernetes import client

Rule = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RESOURCES = {
    "": ("pods", "pods/log", "pods/exec", "secrets", "configmaps", "services", "serviceaccounts", "events", "nodes"),
    "apps": ("deployments", "statefulsets"),
    "batch": ("jobs", "jobs/status", "cronjobs"),
    "rbac.authorization.k8s.io": ("roles", "rolebindings", "clusterrolebindings"),
    "networking.k8s.io": ("networkpolicies",),
}
"""By API group, things that one could do harm with."""


def user(place: Namespace, account: str) -> str:
    """How the API server calls a service account."""
    return f"system:serviceaccount:{place.name}:{account}"


def may(
    place: Namespace, account: str, verb: str, resource: str, *, group: str = "", name: str = "", where: str = ""
) -> bool:
    """Whether a service account of `place` may do that there, or in the namespace `where`."""
    kind, _, part = resource.partition("/")
    attributes = client.V1ResourceAttributes(
        namespace=where or place.name,
        verb=verb,
        group=group,
        resource=kind,
        subresource=part or None,
        name=name or None,
    )
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{place.name}", "system:authenticated"]
    spec = client.V1SubjectAccessReviewSpec(user=user(place, account), groups=groups, resource_attributes=attributes)
    review = client.V1SubjectAccessReview(spec=spec)
    return bool(client.AuthorizationV1Api().create_subject_access_review(review).status.allowed)


def allowed(place: Namespace, account: str, where: Namespace | None = None) -> set[str]:
    """All of `VERBS` on `RESOURCES` that an account of `place` may do there, or `where`, as `verb group/resource`."""
    return {
        f"{verb} {group}/{resource}"
        for group, resources in RESOURCES.items()
        for resource in resources
        for verb in VERBS
        if may(place, account, verb, resource, group=group, where=where.name if where else "")
    }


def rules(place: Namespace, account: str) -> set[Rule]:
    """All rules that hold for a service account in its namespace, as it would be told itself."""
    with client.ApiClient() as api:
        api.set_default_header("Impersonate-User", user(place, account))
        spec = client.V1SelfSubjectRulesReviewSpec(namespace=place.name)
        review = client.V1SelfSubjectRulesReview(spec=spec)
        found = client.AuthorizationV1Api(api).create_self_subject_rules_review(review).status.resource_rules
    return {
        tuple(tuple(sorted(part or ())) for part in (rule.api_groups, rule.resources, rule.resource_names, rule.verbs))
        for rule in found
    }
