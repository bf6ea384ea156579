"""Job orders: all that a process of a job has to be told before it can reach the job's records and data.

On one machine a worker sends the order over the job's line (`student_distiller.job_lines`); a process that was started
elsewhere reads the same from its own settings. Keys stay in their files: an order names the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tutelage.errors import SettingsError
from tutelage.settings import Address, Secret
from tutelage.stores import ObjectsSettings

__all__ = ["JobOrder", "KeyFiles"]

_PATHS = ("ca_file", "folder")


@dataclass(frozen=True)
class KeyFiles:
    """Where the keys lie that a job needs."""

    signer_file: Path
    """PEM file of the Ed25519 key that signs student packages."""
    seal_key_file: Path
    """Key file that seals the strangers of a student package."""
    data_key_file: Path
    """Key file of data sets, teacher's features and checkpoints: the fleet's data key."""
    trusted_files: tuple[Path, ...] = ()
    """PEM files of public keys whose word counts, beside our own, for packages that a job goes on from."""


@dataclass(frozen=True)
class JobOrder:
    """What one process is told."""

    job_id: str
    holder: str
    """Random name of the delivery, as the job's run has it."""
    spent: timedelta
    """Time at work in earlier deliveries."""
    place: ObjectsSettings
    """Where the objects lie."""
    keys: KeyFiles
    scratch: Path
    """Folder of this machine for the training's checkpoint; gone with the delivery."""
    checkpoint_every: timedelta
    device: str = "cpu"
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""

    def as_json(self) -> dict[str, Any]:
        """The order as plain JSON; it holds the secret of the S3 account and must reach nobody else."""
        place = asdict(self.place) | {name: _text(getattr(self.place, name)) for name in ("address", *_PATHS)}
        for name in ("access_key", "secret_key"):
            secret: Secret | None = getattr(self.place, name)
            place[name] = None if secret is None else secret.value.decode()
        keys = {name: _texts(value) for name, value in asdict(self.keys).items()}
        return {
            **{name: getattr(self, name) for name in ("job_id", "holder", "device")},
            "place": place,
            "keys": keys,
            "scratch": str(self.scratch),
            "spent_s": self.spent.total_seconds(),
            "checkpoint_every_s": self.checkpoint_every.total_seconds(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobOrder:
        """The order that `as_json` wrote.

        Raises:
            SettingsError: It is none; worker and process are of different releases.
        """
        try:
            return cls(
                **{name: value[name] for name in ("job_id", "holder", "device")},
                place=_place(value["place"]),
                keys=_keys(value["keys"]),
                scratch=Path(value["scratch"]),
                spent=timedelta(seconds=value["spent_s"]),
                checkpoint_every=timedelta(seconds=value["checkpoint_every_s"]),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise SettingsError("the order of this job cannot be read: run one release everywhere") from error


def _place(value: Mapping[str, Any]) -> ObjectsSettings:
    fields = dict(value)
    fields["address"] = Address.parse(fields["address"]) if fields["address"] else None
    for name in _PATHS:
        fields[name] = Path(fields[name]) if fields[name] else None
    for name in ("access_key", "secret_key"):
        fields[name] = Secret(fields[name].encode()) if fields[name] else None
    return ObjectsSettings(**fields)


def _keys(value: Mapping[str, Any]) -> KeyFiles:
    trusted = tuple(Path(path) for path in value["trusted_files"])
    files = {name: Path(value[name]) for name in ("signer_file", "seal_key_file", "data_key_file")}
    return KeyFiles(**files, trusted_files=trusted)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _texts(value: Any) -> Any:
    return [str(path) for path in value] if isinstance(value, tuple) else str(value)
