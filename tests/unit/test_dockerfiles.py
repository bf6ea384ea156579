"""The images keep their shape: one base, no root, no way around the stages, a context of what is needed and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from source_tree import ROOT

BASE = "python:3.11-slim-bookworm"
USER = "10001:10001"
LABELS = {"title", "description", "licenses", "version", "revision", "created", "source"}
TORCHSERVE = ROOT / "services/teacher-inference/torchserve"
# What the image of the registry is made without, see its Dockerfile.
NOT_IN_THE_REGISTRY = {"numpy", "scipy", "PIL", "torch", "typer", "rich", "pygments", "pydantic", "pydantic_core"}


@dataclass(frozen=True)
class Stage:
    """What stands between two lines FROM."""

    name: str
    parent: str
    instructions: tuple[tuple[str, str], ...]

    def values(self, word: str) -> list[str]:
        return [value for name, value in self.instructions if name == word]


@dataclass(frozen=True)
class Dockerfile:
    path: Path

    def __str__(self) -> str:
        return self.path.parent.name

    @cached_property
    def instructions(self) -> list[tuple[str, str]]:
        lines = [line for line in self.path.read_text().splitlines() if not line.lstrip().startswith("#")]
        joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
        return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]

    @cached_property
    def stages(self) -> dict[str, Stage]:
        found, name = {}, ""
        for word, value in self.instructions:
            if word == "FROM":
                parent, _, name = value.split()
                found[name] = Stage(name, parent, ())
            elif name:
                found[name] = Stage(name, found[name].parent, (*found[name].instructions, (word, value)))
        return found

    def values(self, stage: str, word: str) -> list[str]:
        """Of a stage and what it is built on, the outermost first."""
        if stage not in self.stages:
            return []
        return [*self.values(self.stages[stage].parent, word), *self.stages[stage].values(word)]

    @property
    def outcomes(self) -> list[str]:
        """Stages that become images."""
        return [name for name in ("service", "torchserve", "dev") if name in self.stages]


FILES = [Dockerfile(path) for path in sorted([*ROOT.glob("services/*/Dockerfile"), ROOT / "device-sim/Dockerfile"])]
OUTCOMES = [pytest.param(file, name, id=f"{file}-{name}") for file in FILES for name in file.outcomes]


def test_every_service_and_the_device_have_one():
    services = {path.parent.name for path in ROOT.glob("services/*/pyproject.toml")}
    assert {str(file) for file in FILES} == {*services, "device-sim"}
    assert all({"service", "dev"} <= set(file.outcomes) for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_it_is_built_on_the_one_base_and_ends_with_what_is_deployed(file: Dockerfile):
    assert file.instructions[0] == ("ARG", f"PYTHON_IMAGE={BASE}")
    parents = {stage.parent for stage in file.stages.values()} - set(file.stages)
    assert parents == {"${PYTHON_IMAGE}"}
    assert list(file.stages)[-1] == "service"


@pytest.mark.parametrize(("file", "outcome"), OUTCOMES)
def test_it_runs_as_a_numbered_user_and_leaves_probes_to_the_cluster(file: Dockerfile, outcome: str):
    assert file.values(outcome, "USER")[-1] == USER
    assert file.values(outcome, "HEALTHCHECK") == []
    assert file.values(outcome, "STOPSIGNAL")[-1] == "SIGTERM"
    # A list, no shell: the first process is the one that signals are for.
    assert all(isinstance(word, str) for word in json.loads(file.values(outcome, "ENTRYPOINT")[-1]))
    environment = " ".join(file.values(outcome, "ENV"))
    assert re.search(r"PATH=/opt/venv/bin:", environment)
    assert {"HOME=/tmp", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"} <= set(environment.split())


@pytest.mark.parametrize(("file", "outcome"), OUTCOMES)
def test_its_labels_say_what_it_is(file: Dockerfile, outcome: str):
    label = re.findall(r"org\.opencontainers\.image\.(\w+)=(\"[^\"]*\")", " ".join(file.values(outcome, "LABEL")))
    labels = dict(label)
    assert set(labels) == LABELS
    assert labels["licenses"] == '"Apache-2.0"'
    assert labels["title"].strip('"') == ("torchserve" if outcome == "torchserve" else str(file))
    for name in ("version", "revision", "created", "source"):
        assert labels[name] == f'"${{{name.upper()}}}"'


@pytest.mark.parametrize("file", FILES, ids=str)
def test_nothing_is_fetched_but_by_pip_and_apt_and_no_cache_stays(file: Dockerfile):
    words = {word for word, _ in file.instructions}
    assert words <= {
        "ARG",
        "FROM",
        "ENV",
        "WORKDIR",
        "COPY",
        "RUN",
        "STOPSIGNAL",
        "EXPOSE",
        "USER",
        "ENTRYPOINT",
        "LABEL",
    }
    runs = " && ".join(value for word, value in file.instructions if word == "RUN")
    assert not re.search(r"\b(curl|wget|git)\b", runs)
    for step in runs.split("&&"):
        if re.search(r"\bpip\b.* install\b", step):
            assert "--no-cache-dir" in step, step
        if "apt-get install" in step:
            assert "--no-install-recommends" in step, step


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_final_image_installs_no_python_by_itself(file: Dockerfile):
    for outcome in file.outcomes:
        assert not any("pip" in value for value in file.values(outcome, "RUN"))


def test_what_images_share_is_written_alike_so_that_it_is_built_once():
    with_torch = [file for file in FILES if "torch" in file.stages]
    assert {str(file) for file in with_torch} == {"device-sim", "student-distiller", "teacher-inference"}
    assert len({file.stages["torch"] for file in with_torch}) == 1
    assert len({file.stages["library"] for file in with_torch}) == 1
    assert len({file.stages["base"] for file in with_torch}) == 1


def test_torch_comes_in_one_named_build():
    (run,) = FILES[0].stages["torch"].values("RUN")
    assert "$(grep '^torch==' constraints.txt)+${TORCH_BUILD}" in run
    assert "torch" not in next(file for file in FILES if str(file) == "model-registry").stages


def test_the_context_is_a_list_of_what_goes_in():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for file in FILES
        for word, value in file.instructions
        if word == "COPY" and "--from=" not in value
        for source in [word for word in value.split() if not word.startswith("--")][:-1]
    }
    assert {source.split("/")[0] for source in copied} == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_torchserve_is_started_as_its_own_script_would():
    (entry,) = (file.values("torchserve", "ENTRYPOINT")[-1] for file in FILES if "torchserve" in file.stages)
    words = json.loads(entry)
    vmargs = re.search(r"^vmargs=(.*)$", (TORCHSERVE / "config.properties").read_text(), re.MULTILINE)[1].split()
    assert words[1 : 1 + len(vmargs)] == vmargs
    assert words[0] == "java"
    assert words[words.index("-f") + 1] == "/etc/torchserve/config.properties"
    appenders = re.findall(r"<(\w+) name=", (TORCHSERVE / "log4j2.xml").read_text())
    assert set(appenders) - {"Logger"} == {"Console"}


def test_the_registry_imports_nothing_that_its_image_is_made_without():
    code = (
        "import importlib, pkgutil, sys\n"
        "class Absent:\n"
        "    def find_spec(name, path, target=None):\n"
        f"        if name.split('.')[0] in {NOT_IN_THE_REGISTRY!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent)\n"
        "import model_registry\n"
        "for module in pkgutil.walk_packages(model_registry.__path__, 'model_registry.'):\n"
        "    importlib.import_module(module.name)\n"
        "for name in ('queues', 'redis_server', 's3_objects', 'serving', 'traces', 'tls'):\n"
        "    importlib.import_module('tutelage.' + name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
