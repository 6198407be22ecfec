"""One scene with one library, in a separate process:  python -m promises.scenes LIBRARY JSON

Every record has the attribute ``n``, by which the backend recognises it.  The process
prints one line when everything is logged, and waits for the parent where the scene says so.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from promises.libraries import LIBRARIES, Library


@dataclasses.dataclass
class Login:
    """A value of the application, which a log call gets as it is."""

    user: str
    password: str


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def log_all(library: Library, records: int, seconds: float) -> dict[str, float]:
    """Log ``records`` records, spread over ``seconds``; 0 logs them as fast as possible."""
    start, cpu = time.perf_counter(), time.thread_time()
    for n in range(records):
        if seconds:
            time.sleep(max(0.0, start + n * seconds / records - time.perf_counter()))
        library.log("order placed", n=n, total=9.99, sku="A-1", customer="c-7")
    return {"cpu_us": 1e6 * (time.thread_time() - cpu) / max(1, records)}


def wait_for_parent() -> None:
    sys.stdin.readline()


def burst(library: Library, options: dict[str, Any]) -> None:
    library.log("ready", n=-1)
    time.sleep(2)  # connections and threads are there
    say(**log_all(library, options["records"], 0))
    library.flush()


def outage(library: Library, options: dict[str, Any]) -> None:
    say(**log_all(library, options["records"], options["seconds"]))
    wait_for_parent()
    library.flush()


def ends(library: Library, options: dict[str, Any]) -> None:
    """Log and end; the parent may send a signal as soon as it has read the line."""
    say(**log_all(library, options["records"], options["seconds"]))
    if options["waits"]:
        wait_for_parent()


def secret(library: Library, _options: dict[str, Any]) -> None:
    for message, fields in MESSAGES:
        library.log(message, **fields)
    try:
        raise ConnectionError("cannot connect to postgres://app:leak-exception@db/shop")
    except ConnectionError:
        library.fail("query failed")
    library.flush()


#: A secret contains ``leak-`` or is one of ``SHAPES``; a harmless value contains ``keep-``.
SHAPES = {
    "leak-jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTcifQ.c2lnbmF0dXJlLWxlYWstand0LTAx",
    "leak-aws": "AKIAIOSFODNN7EXAMPLE",
    "leak-pem": "MIIEowIBAAKCAQEAleakpem0123456789",
    "leak-card": "4111111111111111",
}
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{SHAPES['leak-pem']}\n-----END RSA PRIVATE KEY-----"

MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("login", {"password": "leak-field"}),
    ("configured", {"provider": {"url": "https://pay.example", "api_key": "leak-nested"}}),
    ("request", {"headers": {"Authorization": "Bearer leak-header0123456789"}}),
    ("request", {"raw_headers": [["cookie", "sid=leak-pairs"]]}),
    ("value", {"login": Login("ada", "leak-dataclass")}),
    ("paid", {"card_number": SHAPES["leak-card"]}),
    ("key loaded", {"pem": PEM}),
    ("connecting to postgres://app:leak-url@db/shop", {}),
    ("GET /callback?token=leak-query&page=2", {}),
    ('body {"user": "ada", "password": "leak-json"}', {}),
    (f"token {SHAPES['leak-jwt']} refused", {}),
    (f"uploading with {SHAPES['leak-aws']}", {}),
    ("the password is leak-prose", {}),
    ("book", {"author": "keep-author"}),
    ("staff", {"secretary": "keep-secretary"}),
    ("usage", {"token_count": "keep-count"}),
    ("banner", {"cookie_consent": "keep-consent"}),
    ("visit", {"session_minutes": "keep-minutes"}),
    ("account", {"password_reset_required": "keep-reset"}),
    ("the session of keep-prose has ended", {}),
]
SECRETS = [
    *(f"leak-{name}" for name in ("field", "nested", "header", "pairs", "dataclass", "card")),
    *(f"leak-{name}" for name in ("pem", "url", "query", "json", "jwt", "aws", "prose")),
    "leak-exception",
]
HARMLESS = [
    *(f"keep-{name}" for name in ("author", "secretary", "count", "consent", "minutes", "reset")),
    "keep-prose",
]

SCENES = {"burst": burst, "outage": outage, "ends": ends, "secret": secret}

if __name__ == "__main__":
    request = json.loads(sys.argv[2])
    SCENES[request["scene"]](
        LIBRARIES[sys.argv[1]](request["endpoint"], Path(request["directory"])),
        request["options"],
    )
