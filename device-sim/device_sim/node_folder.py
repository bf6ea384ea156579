"""The folder of a device, and the keys and the student that it starts from.

store.sqlite            the store, see `device_sim.schema`
students/               packages, see `device_sim.generations`
jobs/                   a training under way, see `device_sim.training`
store.key, device.key   the keys that no setting names, made at the first start
untold                  there while persons are enrolled whom the teacher was not told of, see `patient_labeller`
event-counts.json       how many events of each kind ever happened, see `event_counts`
lock                    held by the process that uses the folder
"""

from __future__ import annotations

from importlib import resources

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_sim.device_settings import DeviceKeys
from device_sim.first_student import first_student
from device_sim.generations import Generations
from device_sim.node_settings import NodeSettings
from tutelage.adoption import SHIPPED_SEAL_KEY, SHIPPED_TRUST
from tutelage.errors import SettingsError, TutelageError
from tutelage.registry_client import RegistryClient
from tutelage.sealing import key_in, make_key, read_key
from tutelage.settings import PREFIX
from tutelage.signing import make_signer, read_public_key, read_signer

__all__ = ["JOBS", "STORE", "open_generations", "read_keys"]

STORE, STUDENTS, JOBS = "store.sqlite", "students", "jobs"
_PREFIX = f"{PREFIX}DEVICE_"


def read_keys(settings: NodeSettings) -> DeviceKeys:
    """The device's secrets, from where the settings say; those of the folder are made where they are missing.

    Raises:
        SettingsError: One that is named is no key.
        StorageError: One in the folder cannot be made or read.
    """
    own_key, own_signer = settings.folder / "store.key", settings.folder / "device.key"
    try:
        if settings.store_key is not None:
            store = key_in(settings.store_key.value, f"{_PREFIX}STORE_KEY_FILE")
        else:
            store = read_key(own_key) if own_key.exists() else make_key(own_key)
        if settings.fleet_key is not None:
            fleet = key_in(settings.fleet_key.value, f"{_PREFIX}FLEET_KEY_FILE")
        else:
            with resources.as_file(SHIPPED_SEAL_KEY) as shipped:
                fleet = read_key(shipped)
        if settings.signer_file is not None:
            signer = read_signer(settings.signer_file)
        else:
            signer = read_signer(own_signer) if own_signer.exists() else make_signer(own_signer)
    except TutelageError as error:
        raise SettingsError(f"a key of the device cannot be used: {error.message}") from error
    return DeviceKeys(store, fleet, signer)


def open_generations(settings: NodeSettings, keys: DeviceKeys, registry: RegistryClient | None) -> Generations:
    """The device's students; one without any starts from the student that the settings lead to.

    Raises:
        SettingsError: A file that the settings name cannot be used, or the registry's channel was never set.
        PackageError: The first student cannot be trusted.
        StorageError: The folder cannot be used.
        TutelageError: As the registry's calls.
    """
    generations = Generations(
        settings.folder / STUDENTS, cloud_keys=_trusted(settings), device_key=keys.signer.public_key()
    )
    if generations.pointer is None:
        generations.install(first_student(settings, registry))
    return generations


def _trusted(settings: NodeSettings) -> list[Ed25519PublicKey]:
    try:
        if settings.trusted_files:
            return [read_public_key(path) for path in settings.trusted_files]
        with resources.as_file(SHIPPED_TRUST) as shipped:
            return [read_public_key(shipped)]
    except TutelageError as error:
        raise SettingsError(f"{_PREFIX}TRUSTED_FILES: {error.message}") from error
