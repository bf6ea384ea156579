"""Health that is true: a service is up while everything it depends on answers, and not before it has.

A check is an async function that returns when a dependency answered and raises otherwise. `watch_health` runs all of
them again and again; a service counts as up while each of its checks passed the last time, the server as a whole while
all services do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from tutelage.errors import TutelageError

__all__ = ["WHOLE_SERVER", "Check", "watch_health"]

Check = Callable[[], Awaitable[object]]
"""Returns when a dependency answered; whatever it raises means that it did not."""

Report = Callable[[str, bool], Awaitable[None]]
"""Told about a service by name, "" for all together: whether it is up. Told only when that changed."""

WHOLE_SERVER = ""
"""The name under which health of the whole server is asked for."""


async def watch_health(
    checks: Mapping[str, Mapping[str, Check]], report: Report, *, interval_s: float, timeout_s: float
) -> None:
    """Run `checks` (by service, then by dependency) for ever, `interval_s` apart, and `report` what changed.

    A check that takes longer than `timeout_s` has failed. Everything counts as down until its first check has passed.
    """
    known: dict[str, bool] = {}
    failing: set[tuple[str, str]] = set()
    while True:
        up = await _up(checks, timeout_s, failing)
        for service, serving in {**up, WHOLE_SERVER: all(up.values())}.items():
            if known.get(service, False) != serving:
                await report(service, serving)
            known[service] = serving
        await asyncio.sleep(interval_s)


async def _up(
    checks: Mapping[str, Mapping[str, Check]], timeout_s: float, failing: set[tuple[str, str]]
) -> dict[str, bool]:
    """Whether each service is up; keeps in `failing` what was already logged as such."""
    pairs = [(service, name) for service, named in checks.items() for name in named]
    errors = await asyncio.gather(*(_error(checks[service][name], timeout_s) for service, name in pairs))
    for pair, error in zip(pairs, errors, strict=True):
        _log_change(pair, error, failing)
    return {service: not any((service, name) in failing for name in named) for service, named in checks.items()}


async def _error(check: Check, timeout_s: float) -> Exception | None:
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except Exception as error:
        return error
    return None


def _log_change(pair: tuple[str, str], error: Exception | None, failing: set[tuple[str, str]]) -> None:
    service, dependency = pair
    log = structlog.get_logger()
    if error is not None and pair not in failing:
        failing.add(pair)
        told = {"code": error.code.value} if isinstance(error, TutelageError) else {"error": type(error).__name__}
        log.warning("dependency fails", service=service, dependency=dependency, **told)
    elif error is None and pair in failing:
        failing.remove(pair)
        log.info("dependency answers again", service=service, dependency=dependency)
