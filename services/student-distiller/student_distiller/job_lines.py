"""Job lines: how a worker and the processes of a job on the same machine talk, over a UNIX socket of their own.

The worker listens in a folder that nobody else may enter. Each process connects and is sent its *order*; later it may
be asked to stop. The process that leads sends reports, and each may send what it failed with. All messages are JSON
objects, one a line. The connection also tells who is alive: a process whose worker is gone finds it closed and ends at
once, so that nothing works on a job that another worker has taken over.

    worker  -> process    {"order": {...}}, then perhaps {"stop": true}
    process -> worker     {"report": {...}}, or {"failed": {"code": ..., "message": ...}}
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from student_distiller.executors import Heard, Report, report_from_json, report_to_json
from tutelage.errors import Code, TrainingError, TutelageError, error_for

__all__ = ["ProcessLine", "WorkerLine"]

MOST_LINE_BYTES = 1 << 20
"""A report is smaller by far."""

DRAIN_SECONDS = 2.0
"""How long what was said by processes that have ended may be on its way."""

ABANDONED = 70
"""Exit status of a process whose worker is gone."""


class WorkerLine:
    """The worker's end, for all processes of one job; a context manager."""

    def __init__(self, path: Path, order: Mapping[str, Any], heard: Heard) -> None:
        """Listen at `path`, send everybody the `order`, and tell `heard` the reports."""
        self._path, self._order, self._heard = path, order, heard
        self._writers: set[asyncio.StreamWriter] = set()
        self._talking: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self.failures: list[TutelageError] = []
        """What processes said they failed with, the first one first."""

    @property
    def failure(self) -> TutelageError | None:
        """The cause: of several, that of a process which did not fail for lack of the others."""
        causes = [error for error in self.failures if error.code is not Code.TRAINING_KILLED]
        return next(iter([*causes, *self.failures]), None)

    def ask_to_stop(self) -> None:
        """Ask all processes, also those that connect later, to make a checkpoint and end."""
        self._stopping = True
        for writer in self._writers:
            _say(writer, {"stop": True})

    async def drained(self) -> None:
        """Return once everything that processes said before they ended was heard; who still talks then is an orphan."""
        if self._talking:
            await asyncio.wait(self._talking, timeout=DRAIN_SECONDS)

    async def __aenter__(self) -> WorkerLine:
        self._server = await asyncio.start_unix_server(self._connected, self._path, limit=MOST_LINE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._talking:
            task.cancel()
        await asyncio.gather(*self._talking, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._talking.add(task)
        self._writers.add(writer)
        try:
            _say(writer, {"order": dict(self._order)})
            if self._stopping:
                _say(writer, {"stop": True})
            async for line in reader:
                await self._take(json.loads(line))
        except (ConnectionError, ValueError):
            pass  # a process that died in the middle of a line
        finally:
            self._writers.discard(writer)
            self._talking.discard(task)
            writer.close()

    async def _take(self, message: Mapping[str, Any]) -> None:
        if "report" in message:
            await self._heard(report_from_json(message["report"]))
        elif "failed" in message:
            code, text = message["failed"]["code"], message["failed"]["message"]
            self.failures.append(error_for(Code(code), text))


class ProcessLine:
    """A process's end; it listens in a thread of its own and ends the process when the worker is gone."""

    def __init__(self, path: Path, gone: Callable[[], None] = lambda: os._exit(ABANDONED)) -> None:
        """Connect, and return once the order has come.

        Raises:
            TrainingError: `training-killed`, nobody listens at `path`.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._gone, self._lock = gone, threading.Lock()
        self._stop, self._is_closed = threading.Event(), False
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            self.order: Mapping[str, Any] = json.loads(self._lines.readline())["order"]
            """What this process is to do."""
        except (OSError, ValueError, LookupError) as error:
            self._socket.close()
            raise TrainingError(
                Code.TRAINING_KILLED, "the worker of this job is gone: it will be taken over"
            ) from error
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def must_stop(self) -> bool:
        """Whether the worker asked this process to make a checkpoint and end."""
        return self._stop.is_set()

    def report(self, report: Report) -> None:
        """Tell the worker."""
        self._send({"report": report_to_json(report)})

    def failed(self, error: TutelageError) -> None:
        """Tell the worker what this process ends with."""
        self._send({"failed": {"code": error.code.value, "message": error.message}})

    def close(self) -> None:
        """Hang up; the worker sees that nothing more comes."""
        self._is_closed = True
        with suppress(OSError):  # hung up by the worker already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._listening.join()
        self._lines.close()
        self._socket.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            with self._lock:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._gone()

    def _listen(self) -> None:
        try:
            for line in self._lines:
                if json.loads(line).get("stop"):
                    self._stop.set()
        except (OSError, ValueError):
            pass  # closed in the middle of a line: as below
        if not self._is_closed:
            self._gone()


def _say(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
    """Write a line; what a process does not read stays small, so nobody waits for it."""
    writer.write(json.dumps(message).encode() + b"\n")
