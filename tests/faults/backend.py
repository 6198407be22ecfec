"""The scripted backend, in a separate process, to which a row's application sends.

    python -m tests.faults.backend '{"protocol": "http", "port": 40000, "journal": "...", ...}'

It reads commands line by line from standard input and ends when the input ends, so
it cannot outlive the suite: ``{"play": [steps]}`` sets another script, and
``{"open": true}`` opens the port.  It answers each line with ``{"done": ...}``.
Its journal of records is a file, because some rows kill the backend.
"""

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path
from typing import Any

from tests.faults.http_backend import HTTPBackend
from tests.faults.script import Journal, Script

#: The most bytes that gRPC's server accepts if the script sets no limit.
_LARGEST = 64 << 20


def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    server: Any = None
    steps: list[dict[str, Any]] = []
    for line in sys.stdin:
        command = json.loads(line)
        if "play" in command:
            steps = command["play"]
        elif "open" in command:
            server = make_server(options, steps)
            server.start()
        print(json.dumps({"done": list(command)}), flush=True)


def make_server(options: dict[str, Any], steps: list[dict[str, Any]]) -> Any:
    journal = Journal(Path(options["journal"]))
    script = Script.from_json(steps)
    certificate = options["certificate"]  # PEM file of the key and the chain, or ""
    clients = options["clients"]  # PEM file of the authority that clients need, or ""
    if options["protocol"] == "grpc":
        from tests.faults.grpc_backend import GRPCBackend, server_credentials

        pem = Path(certificate).read_bytes() if certificate else b""
        return GRPCBackend(
            options["port"],
            script,
            journal,
            largest=max((step["size"] for step in steps if step["fault"] == "too large"), default=0)
            or _LARGEST,
            credentials=(
                server_credentials(pem, pem, Path(clients).read_bytes() if clients else None)
                if certificate
                else None
            ),
        )
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        if clients:
            tls.load_verify_locations(clients)
            tls.verify_mode = ssl.CERT_REQUIRED
    return HTTPBackend(options["port"], script, journal, tls)


if __name__ == "__main__":
    main()
