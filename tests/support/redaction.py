"""Secrets of every shape, and records with and without them."""

from __future__ import annotations

from typing import Any

from fapilog.processors.redact import RedactProcessor
from fapilog.record import LogRecord

JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc123\n-----END RSA PRIVATE KEY-----"
# Built from parts, so secret scanners do not report them.
GITHUB = "gh" + "p_abcdefghijklmnopqrst0123456789ABCDEF"


def redacted(body: Any = None, /, **attributes: Any) -> LogRecord:
    return RedactProcessor()(LogRecord(body=body, attributes=attributes))
