"""The cloud that a device in a test has: the real services teacher-inference and model-registry on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from labelling_service import ScriptedBackend, part
from labelling_service import settings as teacher_settings
from prometheus_client import CollectorRegistry
from served_part import LOOPBACK, quick_server, twins
from student_packages import STRANGER
from toy_device import PixelTeacher, toy_release

from model_registry.service import PART, RegistrySettings
from teacher_inference.abstention import AbstentionSettings
from tutelage.channel import ChannelSettings
from tutelage.package import build_package, read_package
from tutelage.registry_client import RegistryClient
from tutelage.server import Server
from tutelage.serving import Context, Part
from tutelage.settings import Address
from tutelage.signing import public_pem
from tutelage.stores import open_stores


@asynccontextmanager
async def serving(part: Part, settings: object, folder: Path, port: int = 0) -> AsyncIterator[Address]:
    """Where the part takes calls until the block ends."""
    async with (
        open_stores(twins(folder)) as stores,
        part.open(settings, Context(stores, CollectorRegistry())) as service,
        Server(quick_server(address=Address(LOOPBACK, port)), [service]) as running,
    ):
        yield Address(LOOPBACK, running.port)


@asynccontextmanager
async def teaching(folder: Path, port: int = 0, space: str = PixelTeacher.space) -> AsyncIterator[Address]:
    """teacher-inference with the teacher of pixels, which abstains as a toy device's does."""
    backend = ScriptedBackend(PixelTeacher(space=space))
    settings = teacher_settings(abstention=AbstentionSettings(min_cosine=0.5, min_margin=0.05))
    async with serving(part(backend), settings, folder / "teacher", port) as address:
        yield address


@asynccontextmanager
async def registering(folder: Path, port: int = 0) -> AsyncIterator[Address]:
    """model-registry that trusts the cloud of the toy release, and a stranger whom devices do not trust."""
    keys = {"cloud.pub": toy_release().trusted, "stranger.pub": STRANGER.public_key()}
    folder.mkdir(exist_ok=True)
    for name, key in keys.items():
        (folder / name).write_bytes(public_pem(key))
    settings = RegistrySettings(tuple(folder / name for name in keys), check_in_interval=timedelta(seconds=1))
    async with serving(PART, settings, folder / "registry", port) as address:
        yield address


async def released(registry: Address, data: bytes, before: str | None = None) -> str:
    """Publish a package and let `stable` point to it, where it pointed to `before`; its digest."""

    def publish() -> str:
        with RegistryClient(ChannelSettings(registry), timeout=timedelta(seconds=20)) as client:
            digest = client.publish(data).digest
            client.set_channel("stable", digest, expected=before, reason="a test")
            return digest

    return await asyncio.to_thread(publish)


def signed_as(version: str, signer: Ed25519PrivateKey) -> bytes:
    """The toy student as `version`, signed by somebody."""
    package = read_package(toy_release().package, trusted=[toy_release().trusted])
    return build_package(
        weights=package.weights,
        calibration=package.calibration,
        impostors=package.impostors,
        info=replace(package.info, version=version),
        signer=signer,
    )
