"""Writes generated code from the contracts beside this file; with `--check` only tells whether that is current.

The paths of the contracts below this folder are the import paths of the generated modules, so nothing in them has to be
rewritten: our own contracts are `tutelage/api`, those of servers that a service calls lie below that service's name.
What comes out depends on the versions of the generators, so only those that `pyproject.toml` pins may run.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from shutil import copytree, rmtree

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
GENERATED = {Path("tutelage/api"): ROOT / "src", Path("teacher_inference/wire"): ROOT / "services/teacher-inference"}
"""Packages of generated code, and the folder on the import path that each lies in."""
GENERATORS = ("grpcio-tools", "mypy-protobuf")


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where `--check` found differences or a generator is not the pinned one."""
    faults = wrong_generators() or ([] if "--check" in arguments else regenerate())
    faults = faults or (differences() if "--check" in arguments else [])
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def wrong_generators() -> list[str]:
    """One sentence for each generator that is installed in another version than the pinned one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(pin.split("==") for pin in project["optional-dependencies"]["dev"] if "==" in pin)
    return [
        f"{name} {version(name)} is installed, {pinned[name]} is pinned: pip install '{name}=={pinned[name]}'"
        for name in GENERATORS
        if version(name) != pinned[name]
    ]


def regenerate() -> list[str]:
    """Replace the generated code as a whole; sentences about what went wrong, in which case nothing has changed."""
    with tempfile.TemporaryDirectory() as folder:
        faults = generate(Path(folder))
        for package, source in () if faults else GENERATED.items():
            rmtree(source / package, ignore_errors=True)
            copytree(Path(folder) / package, source / package)
    return faults


def differences() -> list[str]:
    """One sentence for each file that is not as it would be generated now; changes nothing in the tree."""
    with tempfile.TemporaryDirectory() as folder:
        faults = generate(Path(folder))
        return faults or [
            f"{path} is out of date: run `make proto`"
            for package, source in GENERATED.items()
            for path in changed(Path(folder) / package, source / package)
        ]


def changed(fresh_folder: Path, kept_folder: Path) -> list[str]:
    """Paths from the root of files in `kept_folder` that are not as in `fresh_folder`."""
    fresh, kept = contents(fresh_folder), contents(kept_folder)
    found = sorted(path for path in fresh.keys() | kept.keys() if fresh.get(path) != kept.get(path))
    return [(kept_folder / path).relative_to(ROOT).as_posix() for path in found]


def generate(out: Path) -> list[str]:
    """Write modules, stubs and packages for all contracts below `out`; what protoc complains of goes to stderr."""
    contracts = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    outputs += [f"--{name}_opt=quiet" for name in _PLUGINS]
    plugins = [f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}" for name in _PLUGINS]
    include = Path(protoc.__file__).parent / "_proto"
    if protoc.main(["protoc", *plugins, f"-I{PROTOS}", f"-I{include}", *outputs, *contracts]):
        return ["the contracts cannot be compiled; what is wrong stands above"]
    for package in (out / name for name in GENERATED):
        for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
            (folder / "__init__.py").write_text(_PACKAGE, encoding="utf-8")
    return []


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of the files below `folder` by relative path, but for what Python caches there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


_PLUGINS = ("mypy", "mypy_grpc")
_PACKAGE = '"""Generated from the contracts in `protos/` by `make proto`; changed there, never here."""\n'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
