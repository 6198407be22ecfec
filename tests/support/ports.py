"""Ports for servers that need one before they start."""

from __future__ import annotations

import random
import socket
from typing import Final

#: Below the ports that the system chooses itself (on Linux from 32768), so that no other
#: test's server gets the port before this one listens.
_PORTS: Final = range(15_000, 30_000)


def free_port() -> int:
    """Return an unused TCP port of this machine."""
    while True:
        port = random.choice(_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:  # the port is in use
            continue
