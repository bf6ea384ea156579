"""Writes what is inside a container image: `python docs/image_sbom.py IMAGE FILE`, run by `make sbom`.

One CycloneDX document an image, in JSON. The Python distributions come from their metadata in the image, read by
cyclonedx-py; Debian's packages from the image's own list. Nothing is asked of an index, so it tells what is there, and
not what might have been installed.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Any
from urllib.parse import quote

DISTRIBUTIONS = "cd /opt/venv/lib/python3.*/site-packages && tar -cf - *.dist-info"
DEBIAN_FORMAT = "${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\\n"


def in_image(image: str, *words: str) -> bytes:
    """What a command in the image writes; it gets no network, and may write nothing."""
    command = ["docker", "run", "--rm", "--read-only", "--network", "none", "--entrypoint", words[0], image, *words[1:]]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def python_document(image: str) -> dict[str, Any]:
    """The document of cyclonedx-py about an environment that has the metadata of the image's distributions."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "venv")
        venv.create(folder, symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = folder / "lib" / version / "site-packages"
        with tarfile.open(fileobj=io.BytesIO(in_image(image, "sh", "-c", DISTRIBUTIONS))) as metadata:
            metadata.extractall(packages, filter="data")
        tool = Path(sysconfig.get_path("scripts")) / "cyclonedx-py"
        command = [
            str(tool),
            "environment",
            "--output-format",
            "JSON",
            "--output-reproducible",
            str(folder / "bin/python"),
        ]
        document: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return document


def debian_components(image: str) -> list[dict[str, Any]]:
    """One component for each package that Debian's list says is installed."""
    found = []
    for line in in_image(image, "dpkg-query", "--show", "--showformat", DEBIAN_FORMAT).decode().splitlines():
        status, name, version, architecture = line.split("|")
        if status.strip() == "ii":
            address = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}&distro=bookworm"
            found.append({"type": "library", "bom-ref": address, "name": name, "version": version, "purl": address})
    return found


def document_of(image: str) -> dict[str, Any]:
    """The whole document; its subject is the image, by the digest of its configuration."""
    document = python_document(image)
    inspected = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", image], stdout=subprocess.PIPE, check=True
    )
    digest = inspected.stdout.decode().strip()
    subject = {"type": "container", "bom-ref": image, "name": image.rpartition(":")[0], "version": digest}
    document.setdefault("metadata", {})["component"] = subject
    document["components"] = [*document.get("components", []), *debian_components(image)]
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="name and tag of an image that this engine has")
    parser.add_argument("file", type=Path, help="where the document is written")
    told = parser.parse_args()
    document = document_of(told.image)
    told.file.parent.mkdir(parents=True, exist_ok=True)
    told.file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{told.file}: {len(document['components'])} components")


if __name__ == "__main__":
    main()
