"""Bodies through a real server: memory stays bounded, and no chunk waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fapilog_fastapi.payloads import PayloadLogging

from tests.support.asgi import Wired
from tests.support.processes import environment, kill

MEGABYTE = 1 << 20
SERVER = """
import asyncio, json, resource, sys
import uvicorn
from fapilog_fastapi.payloads import PayloadLogging
from tests.support.asgi import Wired

async def app(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    held = [capture.held for capture in wired.captures]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    answer = json.dumps({"size": size, "held": held, "most_held": wired.most_held, "peak": peak})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.encode()})

wired = Wired(app, PayloadLogging(request_bodies=["/upload"], body_types=["*/*"]))

async def main():
    config = uvicorn.Config(wired, port=0, ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving

asyncio.run(main())
"""


@contextlib.contextmanager
def server_process() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path)),
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        kill(process)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory in kilobytes")
def test_an_upload_of_100_megabytes_takes_no_more_memory_than_a_small_one():
    pieces = [b"x" * MEGABYTE] * 100
    with server_process() as url, httpx.Client(trust_env=False, timeout=60) as client:
        headers = {"content-type": "text/plain"}
        before = client.post(f"{url}/upload", content=b"x" * MEGABYTE, headers=headers).json()
        after = client.post(f"{url}/upload", content=iter(pieces), headers=headers).json()
    assert after["size"] == 100 * MEGABYTE
    assert after["held"] == [65_536, 65_536]
    assert after["most_held"] == 65_536
    assert (after["peak"] - before["peak"]) * 1024 < 10 * MEGABYTE


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve ``app`` on the loop of the test, so both sides can wait for each other."""
    config = uvicorn.Config(app, port=0, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        for _ in range(1000):
            if server.started:
                break
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)


def test_a_thousand_server_sent_chunks_arrive_one_by_one_through_a_real_server():
    async def run() -> tuple[list[bytes], dict[str, Any]]:
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def app(scope, receive, send):
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for n in range(1000):
                chunk = b"data: %d\n\n" % n
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                # The next chunk is sent only after the client has this one, so a delay would hang.
                assert await asyncio.wait_for(seen.get(), 60) == chunk
            await send({"type": "http.response.body", "body": b""})

        options = PayloadLogging(response_bodies=["/**"], body_types=["text/event-stream"])
        wired = Wired(app, options)
        received: list[bytes] = []
        async with serving(wired) as url, httpx.AsyncClient(trust_env=False) as client:
            async with client.stream("GET", f"{url}/events") as response:
                async for chunk in response.aiter_raw():
                    received.append(chunk)
                    seen.put_nowait(chunk)
        return received, wired.captures[0].attributes()

    received, attributes = asyncio.run(run())
    assert received == [b"data: %d\n\n" % n for n in range(1000)]
    assert attributes["http.response.body.size"] == len(b"".join(received))
    assert attributes["http.response.body.content"] == b"".join(received).decode()


def test_the_record_of_an_aborted_upload_has_the_bytes_that_arrived():
    async def run() -> dict[str, Any]:
        arrived, gone = asyncio.Event(), asyncio.Event()

        async def app(scope, receive, send):
            while (message := await receive())["type"] == "http.request":
                arrived.set()
                assert message["more_body"]
            gone.set()

        wired = Wired(app, PayloadLogging(request_bodies=["/**"]))
        async with serving(wired) as url:
            host, port = url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
            writer.write(f"{head}Content-Length: 1000\r\n\r\nhello world".encode())
            await asyncio.wait_for(arrived.wait(), 20)
            writer.close()
            await asyncio.wait_for(gone.wait(), 20)
        return wired.captures[0].attributes()

    attributes = asyncio.run(run())
    assert attributes == {
        "http.request.body.size": 1000,
        "http.request.body.content": "hello",
        "http.request.body.truncated": True,
    }
    assert json.dumps(attributes)
