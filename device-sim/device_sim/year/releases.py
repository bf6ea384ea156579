"""The released versions of a year: the shipped student, and others distilled further from it, all signed by one key.

Distilling takes a while and gives the same students every time: they are kept in a folder and taken from there.

    release.key                              signs all versions
    v2-<seed>-<steps>-<persons>.tutelage     the second version, v3-... the third, and so on
"""

from __future__ import annotations

from pathlib import Path

from device_sim.fleet import Release
from device_sim.models import Models, Progress, continued, reissued, signed_anew
from device_sim.year.settings import YearSettings
from tutelage.files import atomic_write, make_folder, read_bytes
from tutelage.package import MAX_PACKAGE_BYTES
from tutelage.signing import make_signer, read_signer

KEY = "release.key"
CREATED = "2026-01-01T00:00:00+00:00"


def released(folder: Path, models: Models, settings: YearSettings, progress: Progress) -> tuple[Release, ...]:
    """The versions of a year in order; those that lie in `folder` are not distilled again.

    Raises:
        PackageError: what lies in `folder` is damaged.
        StorageError: `folder` cannot be read or written.
    """
    make_folder(folder)
    signer = read_signer(folder / KEY) if (folder / KEY).exists() else make_signer(folder / KEY)
    steps, persons = settings.release_steps, settings.release_persons
    models = signed_anew(models, signer)
    found = [models.release]
    for number in range(2, settings.releases + 2):
        path = folder / f"v{number}-{settings.seed}-{steps}-{persons}.tutelage"
        if path.exists():
            models = reissued(models, read_bytes(path, at_most=MAX_PACKAGE_BYTES))
        else:
            seed = 1000 * settings.seed + number  # other fingers and batches for each version
            models = continued(models, seed, steps, CREATED, progress, persons=persons, signer=signer)
            atomic_write(path, models.release.package)
        found.append(models.release)
    return tuple(found)
