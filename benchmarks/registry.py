"""What the registry costs: transfers of a 64 MB package beside the bare minio client, and the check-ins of a fleet.

    python benchmarks/registry.py [--json OUT] [--megabytes N] [--repeats N] [--devices N] [--seconds S]

A registry process, a MinIO and a Redis run on this machine. In each repeat the bare client and the registry move the
same bytes one right after the other, in turn first; ratios are rates of the registry over those of the client in the
same repeat. Processor time is that of all who take part in an upload, whatever else the machine does: its cores can do
no better than share it. Check-ins come at the pace of a whole fleet that checks in every 30 seconds, evenly, whether or
not the ones before were answered; latencies count from when each was due.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from _servers import ACCOUNT, BUCKET, SECRET, Servers, free_port, servers, started
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minio import Minio
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save

from device_sim.provenance import made
from tutelage.allocator import keep_freed_memory
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.package import PackageInfo, build_package, read_package
from tutelage.settings import Address
from tutelage.signing import public_pem

SEED = 17
CHUNK = 1 << 20
CHECK_IN_EVERY_S = 30
WANTED_RATIO = 0.9
WANTED_P99_MS = 100
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
_TIMEOUT = 120


def package(size: int, number: int) -> bytes:
    """A signed package of about `size` bytes that nothing can compress."""
    weights = np.random.default_rng([SEED, number]).integers(0, 256, size, dtype=np.uint8)
    info = PackageInfo("bench", f"v{number}", {"size": "none"}, "fused", "t", "2026-01-01T00:00:00+00:00")
    return build_package(
        weights=save({"w": weights}), calibration={"space": "s"}, impostors=b"", info=info, signer=SIGNER
    )


def header_of(data: bytes) -> pb.UploadHeader:
    return pb.UploadHeader(
        digest=read_package(data, trusted=[SIGNER.public_key()]).digest,
        file_digest="sha256:" + hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
    )


class Registry:
    """The registry as its clients see it."""

    def __init__(self, channel: Channel) -> None:
        self.stub = ModelRegistryServiceStub(channel)  # type: ignore[arg-type]

    async def upload(self, header: pb.UploadHeader, data: bytes) -> None:
        async def parts() -> AsyncIterator[pb.CreateVersionRequest]:
            yield pb.CreateVersionRequest(header=header)
            for start in range(0, len(data), CHUNK):
                yield pb.CreateVersionRequest(chunk=data[start : start + CHUNK])

        await self.stub.CreateVersion(parts(), timeout=_TIMEOUT)

    async def download(self, digest: str) -> int:
        request = pb.DownloadVersionRequest(digest=digest)
        sizes = [len(m.chunk) async for m in self.stub.DownloadVersion(request, timeout=_TIMEOUT)]
        return sum(sizes)


class Processors:
    """Processor time of the processes that take part in a transfer."""

    def __init__(self, **pids: int) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.spent: dict[str, list[dict[str, float]]] = {}

    async def of(self, what: str, work: Awaitable[object]) -> None:
        """Do `work` and keep the milliseconds that each process spent on it, under `what`."""
        before = self._now()
        await work
        self.spent.setdefault(what, []).append({name: now - before[name] for name, now in self._now().items()})

    def _now(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: 1000 * (t.user + t.system) for name, t in times.items()}

    def means(self) -> dict[str, dict[str, float]]:
        """Mean milliseconds of each process by kind of work; the clock of processes counts in steps of 10."""
        return {
            what: {name: statistics.fmean(one[name] for one in spent[1:]) for name in self._processes}
            for what, spent in self.spent.items()  # the first one warms up
        }


async def transfers(
    registry: Registry, client: Minio, processors: Processors, size: int, repeats: int
) -> dict[str, list[dict[str, float]]]:
    """Seconds by direction: one mapping a repeat."""
    found: dict[str, list[dict[str, float]]] = {"upload": [], "first download": [], "next download": []}
    for number in range(repeats + 1):  # the first one warms up
        data, key = package(size, number), f"bare/{number}"
        header = header_of(data)
        put = partial(asyncio.to_thread, client.put_object, BUCKET, key, io.BytesIO(data), len(data))
        upload = partial(registry.upload, header, data)
        bare = partial(asyncio.to_thread, _read, client, key)
        download = partial(registry.download, header.digest)
        repeat = {
            "upload": await in_turn(
                number,
                lambda work=upload: processors.of("registry", work()),
                lambda work=put: processors.of("bare", work()),
            ),
            "first download": await in_turn(number, download, bare),
            "next download": await in_turn(number, download, bare),
        }
        for way, times in repeat.items():
            found[way] += [times] if number else []
    return found


async def in_turn(
    number: int, ours: Callable[[], Awaitable[object]], bare: Callable[[], Awaitable[object]]
) -> dict[str, float]:
    """Seconds of both, the one or the other first."""
    if number % 2:
        first = await seconds(bare())
        return {"registry": await seconds(ours()), "bare": first}
    return {"registry": await seconds(ours()), "bare": await seconds(bare())}


async def seconds(work: Awaitable[Any]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


def _read(client: Minio, key: str) -> int:
    answer = client.get_object(BUCKET, key)
    try:
        return len(answer.read())
    finally:
        answer.close()
        answer.release_conn()


async def check_ins(registry: Registry, digest: str, devices: int, run_s: float) -> list[float]:
    """Seconds from when each check-in was due to its answer."""
    gap = CHECK_IN_EVERY_S / devices
    count = int(run_s / gap)
    begun = time.perf_counter() + 0.2

    async def one(number: int) -> float:
        due = begun + number * gap
        await asyncio.sleep(due - time.perf_counter())
        state = pb.DeviceState(generation="v1", digest=digest, released_digest=digest, persons=40)
        request = pb.CheckInRequest(device_id=f"device-{number % devices}", channel="stable", state=state)
        await registry.stub.CheckIn(request, timeout=_TIMEOUT)
        return time.perf_counter() - due

    return await asyncio.gather(*(one(number) for number in range(count)))


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


async def measure(here: Servers, words: argparse.Namespace) -> dict[str, Any]:
    trusted, port = here.folder / "trusted.pem", free_port()
    trusted.write_bytes(public_pem(SIGNER.public_key()))
    environment = {
        **here.environment(),
        "TUTELAGE_REGISTRY_TRUSTED_FILES": str(trusted),
        "TUTELAGE_SERVER_ADDRESS": f"127.0.0.1:{port}",
        "TUTELAGE_METRICS_ENABLED": "false",
        "TUTELAGE_LOG_LEVEL": "warning",
    }
    client = Minio(f"127.0.0.1:{here.minio_port}", ACCOUNT, SECRET, secure=False)
    client.make_bucket(BUCKET)
    size = words.megabytes * 1_000_000
    with started([sys.executable, "-m", "model_registry"], port, environment, here.folder / "registry.log") as pid:
        processors = Processors(client=os.getpid(), registry=pid, store=here.minio_pid)
        async with Channel(ChannelSettings(Address("127.0.0.1", port))) as channel:
            registry = Registry(channel)
            moved = await transfers(registry, client, processors, size, words.repeats)
            data = package(1000, 9_999)
            digest = header_of(data).digest
            await registry.upload(header_of(data), data)
            change = pb.SetChannelRequest(channel="stable", digest=digest, reason="benchmark")
            await registry.stub.SetChannel(change, timeout=_TIMEOUT)
            waits = await check_ins(registry, digest, words.devices, words.seconds)
    return {
        "transfers": {way: _rates(found, size) for way, found in moved.items()},
        "upload_processor_ms": processors.means(),
        "check_ins": _latencies(waits),
    }


def _rates(found: list[dict[str, float]], size: int) -> dict[str, Any]:
    rates = {who: spread([size / 1e6 / repeat[who] for repeat in found]) for who in ("registry", "bare")}
    return {"megabytes_a_second": rates, "ratio": spread([repeat["bare"] / repeat["registry"] for repeat in found])}


def _latencies(waits: list[float]) -> dict[str, float]:
    milliseconds = 1000 * np.asarray(waits)
    return {
        "count": len(waits),
        **{f"p{share}_ms": float(np.percentile(milliseconds, share)) for share in (50, 90, 99)},
        "max_ms": float(milliseconds.max()),
    }


def show(results: dict[str, Any]) -> None:
    table = Table(title="megabytes a second, median; ratio of the registry to the bare client, median (least to most)")
    for heading in ("way", "registry", "bare client", "ratio"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way, found in results["transfers"].items():
        rates, ratio = found["megabytes_a_second"], found["ratio"]
        told = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        table.add_row(way, f"{rates['registry']['median']:.0f}", f"{rates['bare']['median']:.0f}", told)
    console = Console(width=120)
    console.print(table)
    for what, spent in results["upload_processor_ms"].items():
        console.print(f"processor ms of an upload, {what}: " + ", ".join(f"{k} {v:.0f}" for k, v in spent.items()))
    waits = results["check_ins"]
    console.print(f"{waits['count']} check-ins: p50 {waits['p50_ms']:.1f} ms, p99 {waits['p99_ms']:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30, help="of check-ins (default 30)")
    words = parser.parse_args()
    keep_freed_memory()  # as programs of devices and services do
    before = os.getloadavg()
    with servers() as here:
        results = asyncio.run(measure(here, words))
    show(results)
    if words.json:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"benchmark": "registry", "made": asdict(made([SEED], now))}
        load = {"before": before, "after": os.getloadavg(), "meaning": "1, 5 and 15 minutes; the benchmark is part"}
        names = ("megabytes", "repeats", "devices", "seconds")
        settings = {**{name: getattr(words, name) for name in names}, "check_in_every_s": CHECK_IN_EVERY_S}
        settings["cores"] = len(os.sched_getaffinity(0))
        wanted = {"transfer_ratio_least": WANTED_RATIO, "check_in_p99_ms_most": WANTED_P99_MS}
        content = {**about, "load": load, "settings": settings, "wanted": wanted, "results": results}
        words.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
