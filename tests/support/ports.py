"""Ports for servers whose port must be known before they start."""

from __future__ import annotations

import random
import socket
from typing import Final

#: These ports are below those that a system assigns freely (on Linux from 32768),
#: so no other test's server gets the port before ours listens.
_PORTS: Final = range(15_000, 30_000)


def free_port() -> int:
    """Return a TCP port of this machine on which nothing listens."""
    while True:
        port = random.choice(_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:  # taken
            continue
