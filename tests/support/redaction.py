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

#: One password in the formats of Django, of Werkzeug, of PHC strings and of crypt(3).
PASSWORD_HASHES = (
    "$6$IUnAgIqlc8HU$" + "AbCdEf0123456789./zYxWvU" * 3 + "GhIjKl0123456/",
    "$6$rounds=656000$IUnAgIqlc8HU$" + "AbCdEf0123456789./zYxWvU" * 3 + "GhIjKl0123456/",
    "$5$rounds=535000$ab.cd/ef$" + "AbCdEf0123456789./zYxWvU" + "GhIjKl0123456789./A",
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$" + "AbCdEf0123456789./zYxWvU" + "GhIjKl0123456789./A",
    "$1$IUnAgIql$" + "AbCdEf0123456789./zYxW",
    "$apr1$IUnAgIql$" + "AbCdEf0123456789./zYxW",
    "$2b$12$" + "R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    "$2y$10$" + "R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    "bcrypt$$2b$12$" + "R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    "bcrypt_sha256$$2b$12$" + "R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    "$argon2id$v=19$m=65536,t=3,p=4$" + "c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaasdfg",
    "$argon2i$m=65536,t=3,p=4$" + "c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaasdfg",
    "argon2$argon2id$v=19$m=102400,t=2,p=8$" + "c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaasdfg",
    "pbkdf2_sha256$1000000$" + "Zc9dX1fB4E$k1dqZBkHnvYbKqYtcmhZcd3mQ2nJtdqQmkYFvEhIjbs=",
    "pbkdf2_sha1$260000$" + "Zc9dX1fB4E$k1dqZBkHnvYbKqYtcmhZcd3mQ2k=",
    "pbkdf2:sha256:600000$" + "Zc9dX1fB4E$" + "0123456789abcdef" * 4,
    "$pbkdf2-sha256$29000$" + "N2YMIWQsBWBMae09x1jrPQ$1t8iyB2A.WF/Z5JZv.lfCIhXXN33N23OSgQYThBYRfk",
    "scrypt$16384$" + "Zc9dX1fB4E$8$1$" + "k1dqZBkHnvYbKqYtcmhZcd3mQ2nJtdqQ" * 2 + "ab==",
    "scrypt:32768:8:1$" + "Zc9dX1fB4E$" + "0123456789abcdef" * 8,
    "$scrypt$ln=16,r=8,p=1$" + "aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    "md5$Zc9dX1fB4E$" + "0123456789abcdef" * 2,
)


def redacted(body: Any = None, /, **attributes: Any) -> LogRecord:
    return RedactProcessor()(LogRecord(body=body, attributes=attributes))
