"""What may import what: the library knows no part, parts know no other part, heavy imports stay where they belong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from source_tree import Module, distributions, imports, is_within, modules

LIBRARY = "tutelage"
PARTS = ("device_sim", "model_registry", "student_distiller", "teacher_inference")
TORCH_HOMES = ("tutelage.nn", "device_sim", "student_distiller", "teacher_inference")
TORCH_NAMES = ("torch", "torchvision", "torchaudio")
ONNX_NAMES = ("onnx", "onnxruntime")
STORES = ("redis", "minio", "urllib3")
GRPC_NAMES = ("grpc", "grpc_health", "grpc_reflection", "grpc_status")
GRPC_FILES = frozenset({"server", "channel", "grpc_errors", "handlers", "servicer"})
BIOMETRICS = "tutelage.biometrics"
BIOMETRICS_MAY_IMPORT = ("numpy", "scipy", "tutelage.biometrics", "tutelage.errors")
# The library's modules that need an extra; everything else works with the bare library.
NEED_AN_EXTRA = (
    "tutelage.nn",
    "tutelage.face",
    "tutelage.channel",
    "tutelage.grpc_errors",
    "tutelage.handlers",
    "tutelage.labelling_client",
    "tutelage.registry_client",
    "tutelage.waiting_channel",
    "tutelage.metrics",
    "tutelage.queue_metrics",
    "tutelage.queues",
    "tutelage.redis_server",
    "tutelage.s3_objects",
    "tutelage.server",
    "tutelage.serving",
)


def violations(module: Module, imported: Iterable[str]) -> Iterator[str]:
    """One sentence for each of the `imported` names that `module` must not import."""
    own = module.name.split(".")[0]
    for name in imported:
        if own == LIBRARY and is_within(name, *PARTS):
            yield f"the library imports the part {name}"
        if own != LIBRARY and is_within(name, *(part for part in PARTS if part != own)):
            yield f"one part imports another: {name}"
        if is_within(name, *TORCH_NAMES) and not is_within(module.name, *TORCH_HOMES):
            yield f"only {', '.join(TORCH_HOMES)} import {name}"
        if is_within(name, *ONNX_NAMES) and not is_within(module.name, "tutelage.nn"):
            yield f"only tutelage.nn imports {name}"
        if is_within(name, *GRPC_NAMES) and module.path.stem not in GRPC_FILES:
            yield f"only {', '.join(sorted(GRPC_FILES))} import {name}"
        if is_within(module.name, BIOMETRICS) and not _is_light(name):
            yield f"{BIOMETRICS} imports {name}"


def _is_light(name: str) -> bool:
    return is_within(name, *BIOMETRICS_MAY_IMPORT) or name.split(".", maxsplit=1)[0] in sys.stdlib_module_names


@pytest.mark.parametrize("module", modules(), ids=str)
def test_a_module_imports_what_it_may(module: Module):
    assert list(violations(module, imports(module))) == []


def test_every_distribution_is_the_library_or_a_known_part():
    assert {distribution.import_name for distribution in distributions()} <= {LIBRARY, *PARTS}


def test_the_library_works_without_torch_and_without_any_extra():
    names = [m.name for m in modules() if is_within(m.name, LIBRARY) and not is_within(m.name, *NEED_AN_EXTRA)]
    names.remove("tutelage.__main__")  # runs the command
    absent = {
        *TORCH_NAMES,
        *PARTS,
        "dlib",
        "face_recognition_models",
        "prometheus_client",
        "google",
        *GRPC_NAMES,
        *ONNX_NAMES,
        *STORES,
    }
    code = (
        "import importlib, sys\n"
        "class Absent:\n"
        "    def find_spec(name, path, target=None):\n"
        f"        if name.split('.')[0] in {absent!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent)\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("tutelage.gallery", "import device_sim.gate", "the library imports the part device_sim.gate"),
        ("device_sim.gate", "from model_registry import api", "one part imports another: model_registry.api"),
        ("tutelage.captures", "def f():\n    import torch.nn", "only .* import torch.nn"),
        ("device_sim.gate", "import onnxruntime", "only tutelage.nn imports onnxruntime"),
        ("tutelage.captures", "from grpc import aio", "only .* import grpc.aio"),
        ("tutelage.biometrics.matching", "from ..captures import Pixels", "imports tutelage.captures.Pixels"),
        ("tutelage.biometrics.matching", "from . import features, yaml\nimport pandas", "imports pandas"),
    ],
)
def test_a_planted_import_is_found(module: str, source: str, sentence: str, tmp_path: Path):
    path = tmp_path / "planted.py"
    path.write_text(source)
    planted = Module(path, module)
    (found,) = violations(planted, imports(planted))
    assert re.search(sentence, found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tutelage.nn.losses", "import torch"),
        ("device_sim.training", "import torch\nfrom tutelage.nn import students"),
        ("model_registry.servicer", "import grpc"),
        ("tutelage.biometrics.matching", "import numpy.typing\nimport math\nfrom tutelage.errors import Code"),
        ("tutelage.labelling", "from torchlike import x"),
    ],
)
def test_an_import_that_is_allowed_passes(module: str, source: str, tmp_path: Path):
    path = tmp_path / (module.rpartition(".")[2] + ".py")
    path.write_text(source)
    planted = Module(path, module)
    assert list(violations(planted, imports(planted))) == []
