"""Where a comparison takes place: one ground a seed, on synthetic fingers or on the images of a manifest.

Both are plain data with a call, so that processes can be handed one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from device_sim.evaluation.compare import Ground
from device_sim.models import ImageTraining, from_images, shipped
from device_sim.site import ImageDrift, SiteSize, image_site, synthetic_site
from tutelage.labelling import Teacher
from tutelage.manifest import Manifest, Row


@dataclass(frozen=True)
class SyntheticGrounds:
    """Other persons and another sensor with each seed; the shipped teacher and student."""

    size: SiteSize = field(default_factory=SiteSize)

    def __call__(self, seed: int) -> Ground:
        """The ground of `seed`."""
        models = shipped()
        site = synthetic_site(1000 + seed, 0, self.size, models.impostors)
        return Ground(site, models.student, models.teacher, models.policy)


@dataclass(frozen=True)
class ImageGrounds:
    """Another sensor, teacher and student with each seed, and where the manifest came from a folder, other persons."""

    manifest: Manifest
    teacher: str
    """`train`, or whatever `open_teacher` takes."""
    drift: ImageDrift = field(default_factory=ImageDrift)
    training: ImageTraining = field(default_factory=ImageTraining)
    shuffle: bool = True
    """Whether persons change sides between cloud and devices with the seed."""

    def __call__(self, seed: int) -> Ground:
        """The ground of `seed`."""
        manifest = shuffled(self.manifest, seed) if self.shuffle else self.manifest
        created = datetime.now(UTC).isoformat(timespec="seconds")
        models = from_images(manifest, self._teacher(), seed, self.training, created, lambda *_: None)
        site = image_site(manifest, seed, 0, 1, self.drift, models.impostors)
        return Ground(site, models.student, models.teacher, models.policy)

    def _teacher(self) -> Teacher | None:
        from tutelage.nn.teacher_sources import open_teacher  # noqa: PLC0415

        return None if self.teacher == "train" else open_teacher(self.teacher)


def shuffled(manifest: Manifest, seed: int) -> Manifest:
    """The manifest with whole persons exchanged: each takes another person's place, and the splits of that place.

    Only persons with equally many images are exchanged, so that every split keeps its size.
    """
    rows_of: dict[str, list[Row]] = {}
    for row in manifest.rows:
        rows_of.setdefault(row.person, []).append(row)
    rng, changed = np.random.default_rng([seed, 16]), []
    for count in sorted({len(rows) for rows in rows_of.values()}):
        places = [person for person, rows in rows_of.items() if len(rows) == count]
        for place, person in zip(places, rng.permutation(places), strict=True):
            taken = zip(rows_of[str(person)], rows_of[place], strict=True)
            changed += [Row(own.path, own.person, at.split, at.condition) for own, at in taken]
    return Manifest(tuple(changed))


__all__ = ["ImageGrounds", "SyntheticGrounds", "shuffled"]
