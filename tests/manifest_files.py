"""Manifests, images and folders of persons, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.errors import Code, ManifestError

HEADER = "path,person,split,condition"


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def table(folder: Path, *lines: str, header: str = HEADER, make_images: bool = True) -> Path:
    """A manifest of these lines; the files its first cells name are made as empty files."""
    path = folder / "data.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    for line in lines if make_images else ():
        name = line.split(",")[0]
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    return path


def persons_folder(root: Path, counts: Sequence[int]) -> Path:
    for person, count in enumerate(counts, start=1):
        for number in range(1, count + 1):
            image(root / f"s{person}" / f"{number}.pgm", seed=100 * person + number)
    return root


def refusal(call: Callable[[], object], code: Code = Code.MANIFEST_INVALID) -> str:
    with pytest.raises(ManifestError) as caught:
        call()
    assert caught.value.code is code
    return caught.value.message
