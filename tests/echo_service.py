"""A small real service with a call of each of the four kinds, compiled when it is first needed."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

from grpc_tools import protoc

from tutelage.errors import Code, PersonError, StorageError
from tutelage.log import configure_logging
from tutelage.server import Server, ServerSettings, Service
from tutelage.settings import read_settings

NAME = "tutelage.echo.v1.EchoService"
KINDS = ("One", "Many", "Gather", "Chat")
PROTO = """
syntax = "proto3";
package tutelage.echo.v1;
message Text { string text = 1; bytes blob = 2; }
service EchoService {
  rpc One(Text) returns (Text) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Many(Text) returns (stream Text) { option idempotency_level = IDEMPOTENT; }
  rpc Gather(stream Text) returns (Text);
  rpc Chat(stream Text) returns (stream Text);
}
"""


@cache
def stubs():
    """The generated modules: messages, and stubs with servicers."""
    folder = Path(tempfile.mkdtemp())
    (folder / "tutelage_echo.proto").write_text(PROTO)
    arguments = ["", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}", "tutelage_echo.proto"]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("tutelage_echo_pb2"), importlib.import_module("tutelage_echo_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


class Echo:
    """Answers with what it was sent; some words make it fail, wait or tell of its call."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.calls = 0
        self.fail_first = 0

    async def _obey(self, request):
        self.calls += 1
        match request.text.split()[0] if request.text else "":
            case "typed":
                raise PersonError(request.text)
            case "hidden":
                raise StorageError(Code.STORAGE_FAILED, "/var/lib/gallery could not be read")
            case "untyped":
                raise ValueError(f"no idea what {request.text} is")
            case "wait":
                self.entered.set()
                await self.release.wait()
            case "flaky" if self.calls <= self.fail_first:
                raise StorageError(Code.STORAGE_FAILED, "/var/lib/gallery could not be read")
        return stubs()[0].Text(text=request.text)

    async def One(self, request, context):  # noqa: N802
        return await self._obey(request)

    async def Many(self, request, context):  # noqa: N802
        for _ in range(3):
            yield await self._obey(request)

    async def Gather(self, requests, context):  # noqa: N802
        texts = [(await self._obey(request)).text async for request in requests]
        return stubs()[0].Text(text=" ".join(texts))

    async def Chat(self, requests, context):  # noqa: N802
        async for request in requests:
            yield await self._obey(request)


def service(echo: Echo, checks=None) -> Service:
    """The service as a server takes it."""
    return Service(NAME, partial(stubs()[1].add_EchoServiceServicer_to_server, echo), checks or {})


async def invoke(stub, kind: str, *texts: str, timeout: float | None = 5) -> list[str]:
    """Call `kind` and return the texts of all answers."""
    message = stubs()[0].Text

    async def several():
        for text in texts:
            yield message(text=text)

    request = several() if kind in {"Gather", "Chat"} else message(text=texts[0])
    if kind in {"One", "Gather"}:
        return [(await getattr(stub, kind)(request, timeout=timeout)).text]
    return [answer.text async for answer in getattr(stub, kind)(request, timeout=timeout)]


async def _serve() -> None:
    configure_logging("info", sys.stderr)
    echo = Echo()
    async with Server(read_settings(ServerSettings, os.environ, "TUTELAGE_SERVER_"), [service(echo)]) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        task = asyncio.create_task(server.serve_until_signalled())
        await echo.entered.wait()
        sys.stdout.write("entered\n")
        sys.stdout.flush()
        await asyncio.sleep(1)  # the call is running while the signal comes
        echo.release.set()
        await task


if __name__ == "__main__":
    asyncio.run(_serve())
