"""A real uvicorn in a thread of the test's process, and a client with plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.config import WS_PROTOCOLS

with warnings.catch_warnings():
    # Newer versions of Starlette warn that they prefer a successor of httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["WEBSOCKETS", "TestClient", "abort", "allow_sockets", "fetch", "request", "serving"]

#: The implementation of uvicorn without deprecated code; "" for older versions of uvicorn.
WEBSOCKETS = "websockets-sansio" if "websockets-sansio" in WS_PROTOCOLS else ""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[int]:
    """Serve ``app`` on a free port, and yield the port; the server stops at the end."""
    options = {"log_config": None, "ws": WEBSOCKETS or "none", **options}
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    server = _Server(uvicorn.Config(app, timeout_graceful_shutdown=10, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert server.is_up.wait(30)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        listener.close()


def allow_sockets(wanted: int) -> None:
    """Raise this process's limit of open files, if the system has one and allows it."""
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def request(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> bytes:
    """Return a request that asks for the connection to be closed."""
    lines = [f"{method} {path} HTTP/1.1", "host: test.example", "connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def fetch(port: int, path: str, headers: dict[str, str] | None = None) -> bytes:
    """Return the whole response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(path, headers))
        return await reader.read()
    finally:
        writer.close()


async def abort(port: int, path: str) -> None:
    """Request a stream, and abort the connection after the first piece."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path))
    await reader.readuntil(b"piece")
    writer.transport.abort()
