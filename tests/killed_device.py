"""A device that changes its students until it is killed, again and again; ends with an error if one does not boot.

Run as a program, it prints one line of JSON: how often it killed and what it met. Forking needs a process without
threads, which a test process is not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from student_packages import CLOUD, DEVICE, student_package

from device_sim.generations import Generation, Generations

EXIT_AT_POINT = 9
CHANGES = frozenset({"open", "os.remove", "os.rename", "os.mkdir", "os.link"})
"""What the interpreter announces before it touches the file system (PEP 578)."""


def opened(folder: Path) -> Generations:
    return Generations(folder, cloud_keys=[CLOUD.public_key()], device_key=DEVICE.public_key())


def promote(generations: Generations) -> tuple[str, Callable[[], object]]:
    name = str(generations.next_generation)
    data = student_package(name, parent=generations.boot().package.digest)
    return name, lambda: generations.promote(data)


def install(generations: Generations) -> tuple[str, Callable[[], object]]:
    released = generations.released
    name = str(Generation(1 if released is None else released.version + 1))
    data = student_package(name)
    return name, lambda: generations.install(data, allow_reverted=True)


def revert(generations: Generations) -> tuple[str, Callable[[], object]]:
    return str(generations.previous), lambda: generations.revert("a test")


def changes(generations: Generations, rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
    """Without end: the name of what will recognise after a change, and the change."""
    while True:
        possible = [install] if generations.current is None else [promote, promote, install]
        if generations.previous is not None:
            possible.append(revert)
        yield rng.choice(possible)(generations)


def live(folder: Path, told: int, seed: int) -> None:
    """Change students for ever; tell each start and end, so that whoever kills knows what may be found."""
    generations = opened(folder)
    for name, change in changes(generations, random.Random(seed)):
        os.write(told, f"{name}\n".encode())
        change()
        os.write(told, f"{name} done\n".encode())


def kill_at_random(folder: Path, seed: int, rng: random.Random) -> tuple[set[str], int]:
    """Kill a device some time after it began its first, second or third change; which students may recognise now.

    Also returned is how many changes it finished.
    """
    before = opened(folder).current
    listening, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listening)
        try:
            live(folder, told, seed)
        finally:
            os._exit(1)
    os.close(told)
    with os.fdopen(listening) as reader:
        lines = [reader.readline()]
        began_s = time.monotonic()
        lines += [reader.readline() for _ in range(2 * rng.randrange(3))]
        # About one change takes this long, whatever else the machine is doing.
        change_s = (time.monotonic() - began_s) / (len(lines) // 2) if len(lines) > 1 else 0.005
        time.sleep(rng.uniform(0.0, 1.3 * change_s))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "it ended by itself"
        lines = [line for line in [*lines, *reader] if line.endswith("\n")]
    done = [line.split()[0] for line in lines if line.endswith(" done\n")]
    under_way = set(lines[-1].split()) - {"done"}
    return {done[-1] if done else str(before), *under_way}, len(done)


def stop_at(point: int, folder: Path, change: Callable[[Generations], tuple[str, Callable[[], object]]]) -> bool:
    """Make a change in a process that ends before it touches the disk for the `point`-th time; whether it got there."""
    child = os.fork()
    if child == 0:
        generations = opened(folder)
        _, act = change(generations)
        left = point

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in CHANGES and str(arguments[0]).startswith(str(folder)):
                left -= 1
                if left == 0:
                    os._exit(EXIT_AT_POINT)

        sys.addaudithook(hook)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == EXIT_AT_POINT


def check(folder: Path, allowed: set[str]) -> None:
    """Refuse anything but one of the `allowed` students, all well."""
    generations = opened(folder)
    if generations.current is None:
        assert "None" in allowed, f"nothing to boot, expected {allowed}"
        return
    booted = generations.boot()
    # A first package may lie there before anything points to it.
    expected = {"CURRENT"} if "None" in allowed else set()
    assert {skip.name for skip in booted.skipped} <= expected, booted.skipped
    assert str(booted.generation) in allowed, f"{booted.generation} recognises, expected {allowed}"
    assert booted.package.info.version == str(booted.generation)
    assert len(list(folder.iterdir())) <= 5, "leftovers"


def kill_often(folder: Path, times: int, rng: random.Random) -> dict[str, int]:
    finished = during = 0
    for seed in range(times):
        allowed, done = kill_at_random(folder, seed, rng)
        check(folder, allowed)
        finished += done
        during += len(allowed) > 1
    return {"killed": times, "finished": finished, "during": during}


def kill_everywhere(root: Path) -> dict[str, int]:
    """Stop every kind of change before each of its steps; how many steps each has."""
    base, points = root / "base", {}
    base.mkdir(parents=True)
    for name, change in (("first", install), ("promote", promote), ("install", install), ("revert", revert)):
        allowed, point = {str(opened(base).current), change(opened(base))[0]}, 1
        while stop_at(point, shutil.copytree(base, root / f"{name}-{point}"), change):
            check(root / f"{name}-{point}", allowed)
            point += 1
        points[name] = point - 1
        change(opened(base))[1]()
    return points


def main() -> None:
    root, times = Path(sys.argv[1]), int(sys.argv[2])
    everywhere = kill_everywhere(root / "everywhere")
    sys.stdout.write(json.dumps({**kill_often(root / "often", times, random.Random(1)), "points": everywhere}))


if __name__ == "__main__":
    main()
