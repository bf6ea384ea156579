"""How fast a teacher extracts, by what runs it and how its callers ask: captures a second.

    python benchmarks/labels.py [--json OUT] [--seconds S] [--repeats N] [--threads N]

The shipped fingerprint teacher runs in this process and in a TorchServe on this machine, each with `threads` threads.
Captures are PNG files of the simulated sensor. A *way* is one backend, bare or with the captures of its callers joined
into batches, asked by so many clients at once, each with so many captures in a call and the next call when it has its
answer. Every repeat goes through all ways, in turn forwards and backwards, each for S seconds of the clock; a ratio is
made of two rates of the same repeat. The clients run in this process, beside the server on the same cores. The service
teacher-inference is a process of its own, too: real calls of Label over gRPC on loopback, each capture an attempt, with
the eight persons enrolled in a folder.

Threads of torch that wait for each other sleep, here and in TorchServe as in the service, unless OMP_WAIT_POLICY says
otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from _model_servers import torchserve
from _servers import free_port, started
from rich.console import Console
from rich.table import Table

from device_sim.drift import conditions_at_wear
from device_sim.masters import grow_masters
from device_sim.provenance import made
from device_sim.sensor import Presses, Sensor
from teacher_inference.backends import BackendKind, BackendSettings
from teacher_inference.batching import BatchingBackend
from teacher_inference.opening import open_bare_backend
from tutelage.api.teacher.v1 import teacher_pb2, teacher_pb2_grpc
from tutelage.captures import encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.sealing import make_key
from tutelage.settings import Address

SEED = 31
PERSONS = 8
BATCH = 64
CLIENTS = 64
_TIMEOUT_S = 60

Ask = Callable[[Sequence[bytes]], Awaitable[object]]
"""What a client awaits with its captures."""


@dataclass(frozen=True)
class Way:
    """One way to ask a teacher."""

    name: str
    asked: str
    """Which of the things that are asked."""
    clients: int
    captures: int
    """In each call."""


WAYS = (
    Way("in process, batches", "in-process", 1, BATCH),
    Way("in process, joined, batches", "in-process, joined", 1, BATCH),
    Way("in process, one by one", "in-process", 1, 1),
    Way("in process, joined, 64 clients", "in-process, joined", CLIENTS, 1),
    Way("service, batches", "service", 1, BATCH),
    Way("service, 64 clients", "service", CLIENTS, 1),
    Way("torchserve, batches", "torchserve", 1, BATCH),
    Way("torchserve, joined, batches", "torchserve, joined", 1, BATCH),
    Way("torchserve, one by one", "torchserve", 1, 1),
    Way("torchserve, joined, 64 clients", "torchserve, joined", CLIENTS, 1),
)


@dataclass(frozen=True)
class Ratio:
    """A rate over another of the same repeat, and what it should be at least."""

    name: str
    of: str
    over: str
    wanted: float


RATIOS = (
    Ratio("labels over the bare teacher, one client of batches", "service, batches", "in process, batches", 0.9),
    Ratio("joining costs one client of batches", "in process, joined, batches", "in process, batches", 0.9),
    Ratio("joining costs one client of batches, TorchServe", "torchserve, joined, batches", "torchserve, batches", 0.9),
    Ratio("64 clients over TorchServe one by one", "torchserve, joined, 64 clients", "torchserve, one by one", 5.0),
    Ratio("64 clients of the service over TorchServe one by one", "service, 64 clients", "torchserve, one by one", 5.0),
)


def captures() -> list[bytes]:
    """`BATCH` captures of `PERSONS` persons, as devices send them."""
    masters, sensor, each = grow_masters(SEED, range(PERSONS)), Sensor(SEED, 0), BATCH // PERSONS
    pressed = [
        sensor.capture(
            masters[person].expand(each, -1, -1), Presses.of(SEED, person, range(each)), conditions_at_wear(0.2)
        )
        for person in range(PERSONS)
    ]
    return [encode_png(np.asarray(pixels)) for of_person in pressed for pixels in of_person]


@asynccontextmanager
async def asked(threads: int, port: int) -> AsyncIterator[dict[str, Ask]]:
    """All that can be asked, by name."""
    at_server = BackendSettings(kind=BackendKind.TORCHSERVE, address=Address("127.0.0.1", port))
    found: dict[str, Ask] = {}
    async with AsyncExitStack() as stack:
        for settings in (BackendSettings(threads=threads), at_server):
            bare = await open_bare_backend(settings)
            joined = BatchingBackend(bare)
            stack.push_async_callback(joined.close)
            for name, backend in ((f"{bare.kind}", bare), (f"{bare.kind}, joined", joined)):
                found[name] = lambda pngs, backend=backend: backend.extract(pngs, timeout=_TIMEOUT_S)
        found["service"] = await stack.enter_async_context(service(threads))
        yield found


@asynccontextmanager
async def service(threads: int) -> AsyncIterator[Ask]:
    """Asks the service for labels of captures, each an attempt, over gRPC."""
    async with AsyncExitStack() as stack:
        folder, address = Path(stack.enter_context(tempfile.TemporaryDirectory())), Address("127.0.0.1", free_port())
        make_key(folder / "gallery.key")
        environment = {
            "TUTELAGE_SERVER_ADDRESS": str(address),
            "TUTELAGE_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
            "TUTELAGE_STORES_OBJECTS_FOLDER": str(folder / "objects"),
            "TUTELAGE_TEACHER_GALLERY_KEY_FILE": str(folder / "gallery.key"),
            "TUTELAGE_TEACHER_BACKEND_THREADS": str(threads),
        }
        program = [sys.executable, "-m", "teacher_inference"]
        stack.enter_context(started(program, address.port, environment, folder / "log"))
        channel = await stack.enter_async_context(Channel(ChannelSettings(address)))
        stub = teacher_pb2_grpc.TeacherInferenceServiceStub(cast(Any, channel))
        pngs, each = captures(), BATCH // PERSONS
        for person in range(PERSONS):
            own = pngs[person * each : person * each + 3]
            request = teacher_pb2.EnrolPersonRequest(site="site", person=f"person {person}", captures=own)
            await stub.EnrolPerson(request, timeout=_TIMEOUT_S)

        async def ask(asked: Sequence[bytes]) -> None:
            attempts = [teacher_pb2.Attempt(captures=[capture]) for capture in asked]
            answer = await stub.Label(teacher_pb2.LabelRequest(site="site", attempts=attempts), timeout=_TIMEOUT_S)
            assert len(answer.answers) == len(asked)

        yield ask


async def rate(way: Way, ask: Ask, pngs: Sequence[bytes], seconds: float) -> float:
    """Captures a second from the first call to the last answer; calls begin for so many `seconds`."""
    begun, done = time.perf_counter(), 0

    async def client(number: int) -> None:
        nonlocal done
        turn = number
        while time.perf_counter() - begun < seconds:
            chosen = [pngs[(turn + place) % len(pngs)] for place in range(way.captures)]
            await ask(chosen)
            done += way.captures
            turn += way.clients * way.captures

    await asyncio.gather(*(client(number) for number in range(way.clients)))
    return done / (time.perf_counter() - begun)


async def measure(words: argparse.Namespace) -> dict[str, list[float]]:
    """Rates by way, one each repeat."""
    pngs = captures()
    rates: dict[str, list[float]] = {way.name: [] for way in WAYS}
    with torchserve(words.threads) as port:
        async with asked(words.threads, port) as found:
            for way in WAYS:  # warm: the server's Java compiles while it runs
                await rate(way, found[way.asked], pngs, words.seconds)
            for repeat in range(words.repeats):
                for way in WAYS if repeat % 2 == 0 else reversed(WAYS):
                    rates[way.name].append(await rate(way, found[way.asked], pngs, words.seconds))
    return rates


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


def show(results: dict[str, Any], load: dict[str, Any]) -> None:
    title = f"captures a second, mean ± sd; load average {load['before'][0]:.1f} to {load['after'][0]:.1f}"
    table = Table("way", title=title)
    table.add_column("captures a second", justify="right")
    for name, found in results["captures_a_second"].items():
        table.add_row(name, f"{found['mean']:,.0f} ± {found['sd']:,.0f}")
    for ratio in RATIOS:
        found = results["ratios"][ratio.name]
        table.add_row(f"{ratio.name} (wanted {ratio.wanted:g})", f"{found['mean']:.2f} ± {found['sd']:.2f}")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each way in a repeat (default 3)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all processors)")
    words = parser.parse_args()
    if words.seconds <= 0 or words.repeats < 1 or words.threads < 1:
        parser.error("--seconds must be above 0, --repeats and --threads at least 1")
    torch.set_num_threads(words.threads)
    before = os.getloadavg()
    rates = asyncio.run(measure(words))
    load = {"before": before, "after": os.getloadavg(), "meaning": "1, 5 and 15 minutes; the benchmark is part of it"}
    ratios = {
        ratio.name: spread([of / over for of, over in zip(rates[ratio.of], rates[ratio.over], strict=True)])
        for ratio in RATIOS
    }
    results = {"captures_a_second": {name: spread(found) for name, found in rates.items()}, "ratios": ratios}
    show(results, load)
    if words.json:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"benchmark": "labels", "made": asdict(made([SEED], now)), "load": load}
        settings = {"repeats": words.repeats, "seconds": words.seconds, "threads": words.threads, "batch": BATCH}
        settings["omp_wait_policy"] = os.environ["OMP_WAIT_POLICY"]
        wanted = {ratio.name: ratio.wanted for ratio in RATIOS}
        words.json.parent.mkdir(parents=True, exist_ok=True)
        content = about | settings | {"wanted": wanted, "ways": [asdict(way) for way in WAYS], "results": results}
        words.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch was loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "passive"})
    main()
