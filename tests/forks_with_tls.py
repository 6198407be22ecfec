"""Forks a process again and again while its delivery threads connect by TLS.

    python -m tests.forks_with_tls --forks 3000

A server in another process closes each connection after one request, so the
parent's delivery threads constantly resolve a name and do TLS handshakes.  Each child
logs one record and delivers it.  A child that was forked while a delivery thread
held a lock of the resolver or of OpenSSL would wait for that lock forever.

Such a lock is held only for microseconds.  ``--widen`` puts a lock around each call
of these libraries and holds it for some milliseconds, so about one fork in a few
happens while it is held.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trustme

import fapilog
from fapilog.native import monotonic
from fapilog.protocols import BatchLimits
from fapilog.sinks import OTLPSink

#: Seconds after which a child counts as hung.
PATIENCE: Final = 20.0
SENDERS: Final = 4
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def serve(directory: Path) -> None:
    """Answer one request per connection; print the port, and end with standard input."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "server.pem")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    for _ in range(2 * SENDERS):
        threading.Thread(target=_answer_all, args=(listener, tls), daemon=True).start()
    sys.stdin.read()


def _answer_all(listener: socket.socket, tls: ssl.SSLContext) -> None:
    while True:
        connection, _ = listener.accept()
        connection.settimeout(10)
        try:
            with tls.wrap_socket(connection, server_side=True) as secure:
                secure.recv(1 << 16)
                secure.sendall(ANSWER)
        except OSError:  # the child was killed, or the client ran out of time
            connection.close()


def widen(seconds: float = 0.003) -> None:
    """Hold a lock for ``seconds`` around each call of the resolver and of OpenSSL."""
    for holder, names in (
        (socket, ("getaddrinfo",)),
        (ssl.SSLObject, ("do_handshake", "read", "write")),
        (ssl.SSLSocket, ("do_handshake",)),
    ):
        lock = threading.Lock()
        for name in names:
            setattr(holder, name, _locked(getattr(holder, name), lock, seconds))


def _locked(call: Callable[..., Any], lock: threading.Lock, seconds: float) -> Callable[..., Any]:
    @functools.wraps(call)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            time.sleep(seconds)
            return call(*args, **kwargs)

    return locked


def deliver_in_child() -> None:
    signal.alarm(int(PATIENCE))  # ends the server if no other code does
    fapilog.get_logger("child").info("x")
    os._exit(0 if fapilog.flush(PATIENCE - 5) and fapilog.stats().delivered else 1)


def fork_all(forks: int, url: str, certificate: str) -> tuple[int, float, int]:
    """Return how many children hung, the longest fork in seconds, and the parent's requests."""
    sink = OTLPSink(
        url, certificate=certificate, concurrency=SENDERS, limits=BatchLimits(count=1, delay=0.001)
    )
    fapilog.configure(sinks=sink, otel_provider=False)
    stop = threading.Event()

    def keep_busy() -> None:
        log = fapilog.get_logger("parent")
        while not stop.is_set():
            if fapilog.stats().pending < 2 * SENDERS:
                log.info("x")
            else:
                time.sleep(0.001)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    hung, longest = 0, 0.0
    for _ in range(forks):
        began = monotonic()
        child = os.fork()
        if not child:
            deliver_in_child()
        longest = max(longest, monotonic() - began)
        hung += os.waitpid(child, 0)[1] != 0
    stop.set()
    busy.join()
    requests = fapilog.stats().delivered
    fapilog.shutdown(10)
    return hung, longest, requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=int, default=300)
    parser.add_argument("--widen", action="store_true", help="hold the locks for milliseconds")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        server = authority.issue_cert("localhost")
        server.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
        command = [sys.executable, "-m", "tests.forks_with_tls", "--serve", str(directory)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as backend:
            assert backend.stdout is not None
            url = f"https://localhost:{int(backend.stdout.readline())}/v1/logs"
            if options.widen:
                widen()
            hung, longest, requests = fork_all(options.forks, url, str(directory / "ca.pem"))
            backend.communicate()
    print(
        f"{options.forks} forks, {hung} children hung, longest fork {longest * 1000:.0f} ms, "
        f"{requests} requests of the parent"
    )
    sys.exit(bool(hung))


if __name__ == "__main__":
    main()
