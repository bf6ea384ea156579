"""The restricted Pod Security Standard, rule by rule: each says whether a Pod's spec keeps it.

The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards, baseline and restricted. What a rule
speaks of may be said for the Pod, for each container, or for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All that runs in a Pod, whenever."""
    return [*pod["containers"], *pod.get("initContainers", ()), *pod.get("ephemeralContainers", ())]


def contexts(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """What holds for each container: its own word before the Pod's."""
    return [{**pod.get("securityContext", {}), **one.get("securityContext", {})} for one in containers(pod)]


RULES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "no host namespaces": lambda pod: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "not privileged": lambda pod: not any(c.get("privileged") for c in contexts(pod)),
    "all capabilities dropped": lambda pod: all(
        c.get("capabilities", {}).get("drop") == ["ALL"] for c in contexts(pod)
    ),
    "no capability added": lambda pod: all(not c.get("capabilities", {}).get("add") for c in contexts(pod)),
    "volumes of allowed kinds": lambda pod: all(set(v) - {"name"} <= VOLUMES for v in pod.get("volumes", ())),
    "no host ports": lambda pod: not any(p.get("hostPort") for c in containers(pod) for p in c.get("ports", ())),
    "no escalation": lambda pod: all(c.get("allowPrivilegeEscalation") is False for c in contexts(pod)),
    "not root": lambda pod: all(c.get("runAsNonRoot") is True for c in contexts(pod)),
    "not user 0": lambda pod: all(c.get("runAsUser") != 0 for c in contexts(pod)),
    "seccomp": lambda pod: all(
        c.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost") for c in contexts(pod)
    ),
    "no sysctls": lambda pod: not pod.get("securityContext", {}).get("sysctls"),
    "no proc mount": lambda pod: all(c.get("procMount", "Default") == "Default" for c in contexts(pod)),
    "no SELinux or AppArmor of its own": lambda pod: (
        not any(c.get("seLinuxOptions") or c.get("appArmorProfile") for c in contexts(pod))
    ),
}
