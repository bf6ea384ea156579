"""Follows docs/kubernetes.md, as `followed_page` says, on the cluster that the kubeconfig leads to.

The images `tutelage/NAME:dev` must be there. What the page installs in the namespace `tutelage` is installed in one of
its own, which goes in the end.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from followed_page import DOCS, Page, Served, environment, follow

SHOWN, NAMESPACE = "tutelage", "tutelage-page"
OPTION = "--namespace "


def spoken(command: str) -> str:
    """A command of the page in the namespace of its own."""
    return command.replace(OPTION + SHOWN, OPTION + NAMESPACE)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A cluster without that namespace; the chart lies in the folder as it does in the repository."""
    (folder / "charts").symlink_to(DOCS.resolve().parent / "charts")
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    try:
        yield Served(NAMESPACE, environment(COLUMNS="100"), spoken)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def kubectl(*words: str) -> None:
    """Run it, or end with what it says."""
    done = subprocess.run(["kubectl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


if __name__ == "__main__":
    sys.exit(follow(Page("kubernetes.md", SHOWN, "kind create cluster", serving)))
