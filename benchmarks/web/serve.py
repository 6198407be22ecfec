"""Serves one of the applications in this process: ``python -m web.serve NAME ENDPOINT DIRECTORY``.

Prints its port, then serves with one uvicorn worker until it is terminated.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn

from web.apps import APPS, Target


def main() -> None:
    name, endpoint, directory = sys.argv[1:]
    app = APPS[name](Target(endpoint, Path(directory, "bench.log")))
    # asyncio turns Nagle's algorithm off only if the socket names its protocol.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
