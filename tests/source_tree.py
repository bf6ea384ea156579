"""The repository's own source code as the tests of its shape see it: modules, their syntax trees, their imports."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNSEEN_FOLDERS = frozenset({".git", ".venv", "__pycache__", "build", "dist", "node_modules"})
GENERATED = (Path("src/tutelage/api"), Path("services/teacher-inference/teacher_inference/wire"))


@dataclass(frozen=True)
class Module:
    """One source file and the name it is imported by."""

    path: Path
    name: str

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Distribution:
    """One installable folder."""

    folder: Path
    project: dict

    @property
    def import_name(self) -> str:
        return self.project["name"].replace("-", "_")

    @property
    def source(self) -> Path:
        """Folder that is on the import path once this is installed."""
        return self.folder / "src" if (self.folder / "src").is_dir() else self.folder


@cache
def distributions() -> tuple[Distribution, ...]:
    """The library first, then the device and the services."""
    files = [
        ROOT / "pyproject.toml",
        ROOT / "device-sim/pyproject.toml",
        *sorted(ROOT.glob("services/*/pyproject.toml")),
    ]
    return tuple(Distribution(f.parent, tomllib.loads(f.read_text(encoding="utf-8"))["project"]) for f in files)


@cache
def modules() -> tuple[Module, ...]:
    """Every module that we wrote and that gets installed."""
    return tuple(
        Module(path, module_name(path, distribution.source))
        for distribution in distributions()
        for path in sorted((distribution.source / distribution.import_name).rglob("*.py"))
        if not any(path.is_relative_to(ROOT / folder) for folder in GENERATED)
    )


def module_name(path: Path, source: Path) -> str:
    """Dotted name of the module in `path`, imported with `source` on the import path."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: Module) -> Iterator[str]:
    """Absolute dotted names of everything that `module` imports anywhere, relative imports resolved."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _base(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, *([node.module] if node.module else [])])


def is_within(name: str, *packages: str) -> bool:
    """Whether the dotted `name` is one of `packages` or lies inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@cache
def repository_files() -> tuple[Path, ...]:
    """Files that are committed or would be by `git add .`; without git, all that are no build output."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not _is_unseen(path.relative_to(ROOT))]
    return tuple(sorted(path for path in found if path.is_file()))


def _is_unseen(path: Path) -> bool:
    return any(part in UNSEEN_FOLDERS or part.endswith((".egg-info", "_cache")) for part in path.parts)
