"""Ports for servers that must be told one before they start."""

from __future__ import annotations

import random
import socket
from typing import Final

#: Below those that a system gives to whoever asks for any (on Linux from 32768),
#: so that no other test's server is given the port before ours is up.
_PORTS: Final = range(15_000, 30_000)


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens at."""
    while True:
        port = random.choice(_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:  # taken
            continue
