r"""Measures how long hostile texts hold the interpreter: ``make stalls``.

    python -m tests.stalls [--only NAME]...

Prints, for each hostile text, the time of redaction at three lengths, the
exponent of its growth, and the longest time that another thread waited while a
record with the text went through a pipeline to the sinks.  Exits with 1 if the
time grows faster than the text.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator

import httpx

import fapilog
from fapilog import LogRecord
from fapilog.processors import RedactProcessor
from fapilog.sinks import ConsoleSink, LokiSink, MemorySink, OTLPSink
from tests.faults.stall import Stalls

SIZES = (1_000, 10_000, 100_000)
#: The exponent by which the time may grow with the length of the text: 1 is linear.
STEEPEST = 1.3


def times(piece: str) -> Callable[[int], str]:
    return lambda size: (piece * (size // len(piece) + 1))[:size]


def between(head: str, piece: str, tail: str) -> Callable[[int], str]:
    return lambda size: head + times(piece)(max(size - len(head) - len(tail), 1)) + tail


def lines(*pieces: str) -> Callable[[int], str]:
    return times("\n".join(pieces) + "\n")


TOKEN = " token=x"
VALIDATION = " validation error for "

#: Texts named after what they attack, each as a function of its length.
HOSTILE: dict[str, Callable[[int], str]] = {
    # errors of pydantic
    "titles and escaped line ends": between("", VALIDATION + "\\n\\n\\n", TOKEN + " input_value="),
    "one title, escaped line ends": between(VALIDATION, "\\n", TOKEN + " input_value="),
    "titles in lines": between("token=input_value=", VALIDATION + "x\n", ""),
    "places without details": between("token=input_value=", "a\n  ", ""),
    "places after titles": between("token=input_value=", VALIDATION + "x\nplace\n  wrong\n", ""),
    "one long place": between("token=input_value= [type=x]\n", "a", "\n  wrong"),
    "bars before places": between("token=input_value=", "\n" + " " * 31 + "| a", ""),
    "details": between("token=", " [type=a, input_value=", ""),
    "details that never end": between("token= validation error for A\ntoken\n  x", " [type=", ""),
    "cut values": between("token=", "input_value=...", ""),
    "dots in values": between("token=", "input_value=" + "." * 63, ""),
    "one value of dots": between("token=input_value=", ".", ""),
    "further information": between("token=input_value=", "For further information x\na\n  ", ""),
    "locations": between("token=", '"loc":[', ""),
    "locations with members": between("token=", "'loc':('a'),'msg':'", ""),
    "members without values": between('token="loc":["token"]', ',"msg":x', ""),
    # names and values
    "names without values": between("token ", "ab.cd-", ""),
    "one long name": between("", "a", "=token="),
    "camel case": between("", "aB", "=token="),
    "camel case, a secret": between("", "aB", "Token=x"),
    "words and names": between("token=", "api key ", ""),
    "equal signs": between("token", "=", ""),
    "names and equal signs": times("token="),
    "secret names and values": times("token=x&"),
    "secret names, quoted": times('"token":"x",'),
    "secret names, open quotations": times('token="'),
    "quotes": between("token=", '"', ""),
    "backslashes": between("token=", "\\", ""),
    "backslashes after a quote": between('token="', "\\", ""),
    "backslashes and quotes": between('token="', '\\"', ""),
    "growing escapes": between('token=\\"', '\\\\\\"', ""),
    "many escaped quotations": times('token=\\\\"x\\"'),
    "open brackets": between("token=", "[", ""),
    "secret names, open brackets": times("token=["),
    "nested JSON": between('"token":', '{"a":', ""),
    "secret names, nested JSON": times('"token":{'),
    "commas": between("token=", ",a", ""),
    "commas and dots": between("token=x", ",a.b-c", ""),
    "tuples": times("('token', 'x"),
    "dashes": between("token", "--", ""),
    "options": times("--token "),
    "headers": times("authorization: "),
    "cookies": times("cookie: a=b; "),
    "schemes": times("token: bearer "),
    "percent signs": between("token=", "%", ""),
    "percent-encoded": between("", "%74%6f%6b%65%6e", "%3Dx"),
    "percent-encoded many times": between("token=", "%25", "25" * 50 + "3D"),
    "percent-encoded once, long": between("token=%", "25", ""),
    "percent-encoded parameters": times("a=%70assword%3Dx&"),
    "percent-encoded words": times("%70 token=x "),
    "JSON escapes": times('"token\\u003dx'),
    "JSON escapes of escapes": between("token=", "\\u005c", ""),
    "percent-encoded colons": times("token%3A"),
    # shapes of secrets
    "sk-": times("sk-"),
    "sk-, long": between("sk-", "a", ""),
    "sk- and dashes": times("sk-a-"),
    "AKIA": times("AKIA"),
    "github": times("ghp_"),
    "github, long": between("ghp_", "a", ""),
    "slack": times("xoxb-"),
    "sendgrid": times("SG."),
    "sendgrid, long": between("SG.", "a", "."),
    "json web tokens": times("eyJ"),
    "json web tokens, dots": times("eyJhbGciOiJIUzI1NiJ9."),
    "json web token, long": between("eyJ", "a", "."),
    "urls": times("://"),
    "urls and colons": between("", "://:", "@"),
    "urls, long passwords": between("", "://a:" + "b" * 250, "@"),
    "urls and at signs": times("://a:@"),
    "bearers": times("bearer "),
    "bearer, long": between("bearer ", "a", ""),
    "basics": times("basic "),
    "private keys": times("-----BEGIN PRIVATE KEY-----"),
    "private keys without a name": times("-----BEGIN A"),
    "ends of private keys": times("-----END PRIVATE KEY-----\n"),
    "lines of keys": between("", "A" * 64 + "\n", "-----END PRIVATE KEY-----"),
    "telegram": times("12345678:AA"),
    "crypt": times("$6$a$"),
    "crypt, long": between("$6$a$", "a", "$"),
    "crypt and rounds": times("$5$rounds=1$"),
    "bcrypt": times("bcrypt_sha256$$2b$12$"),
    "bcrypt, long": between("$2b$12$", "a", "$"),
    "argon2": times("argon2$argon2id$v=19$m=1,t=1,p=1$aaaa$"),
    "argon2, parameters": times("$argon2id$m=1,t=1,p=1,a=a,a=a"),
    "pbkdf2": times("pbkdf2_sha256$1$a$"),
    "pbkdf2, long salts": times("pbkdf2_sha256$1$" + "a" * 128),
    "pbkdf2, one salt": between("pbkdf2:sha256:1$", "a", "$"),
    "scrypt": times("scrypt$1$a$1$1$"),
    "scrypt, long salts": times("scrypt:1:1:1$" + "a" * 127 + "$"),
    "md5": times("md5$a"),
    "dollars": between("$2$6$", "$", ""),
    "digits": between(":AA", "1", ":AA"),
    "paths": times("/reset/a"),
    "paths, long": between("/reset/", "a1", ""),
    # ordinary text
    "spaces": between("token=", " ", ""),
    "line ends": between("token=", "\n", ""),
    "names and line ends": times("token:\n\n\n"),
    "names and spaces": times("token" + " " * 63),
    "names in quotes and line ends": times('"token":\n' + " " * 98),
    "names in lines": times("\n  token:\n  "),
    "emoji": between("token=", "\N{GRINNING FACE}", ""),
    "letters": between("token=x ", "a", ""),
    "words": lines("token rotated by the operator", "order placed in 12 ms"),
}


def seconds(text: str) -> float:
    """Return the shortest time of several redactions."""
    best = math.inf
    for _ in range(3):
        redactor = RedactProcessor()
        record = LogRecord(1, 1, 9, "INFO", text, {})
        began = time.process_time()
        redactor(record)
        best = min(best, time.process_time() - began)
    return best


def slope(figures: list[float]) -> float:
    """Return the exponent of the growth between the two longest texts."""
    return math.log10(max(figures[-1], 1e-6) / max(figures[-2], 1e-6))


def longest_wait(text: str, stalls: Stalls) -> float:
    """Return the longest time another thread waited while the text was logged and delivered."""
    stalls.longest = 0.0
    log = fapilog.get_logger("stalls")
    log.info(text, text=text, nested={"text": [text]})
    fapilog.flush(60)
    return stalls.longest


def rows(names: list[str], stalls: Stalls) -> Iterator[tuple[str, list[float], float, float]]:
    for name in names:
        make = HOSTILE[name]
        figures = [seconds(make(size)) for size in SIZES]
        yield name, figures, slope(figures), longest_wait(make(SIZES[-1]), stalls)


def start() -> Stalls:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    fapilog.configure(
        sinks=[
            MemorySink(),
            ConsoleSink(_Nowhere(), format="pretty"),
            OTLPSink("http://backend.invalid", transport=transport),
            LokiSink("http://backend.invalid", transport=transport),
        ],
        handle_sigterm=False,
    )
    stalls = Stalls()
    stalls.start()
    return stalls


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stalls")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="texts whose names contain NAME"
    )
    only = parser.parse_args().only
    names = [name for name in HOSTILE if not only or any(part in name for part in only)]
    stalls = start()
    time.sleep(0.5)
    print(f"Without work, the longest wait of another thread is {stalls.longest * 1000:.1f} ms.\n")
    print(f"| text | {' | '.join(f'{s // 1000}k' for s in SIZES)} | slope | longest wait |")
    print("|---|---|---|---|---|---|")
    steep = []
    for name, figures, grows, wait in rows(names, stalls):
        shown = " | ".join(f"{figure * 1e6:,.0f} us" for figure in figures)
        print(f"| {name} | {shown} | {grows:.2f} | {wait * 1000:.1f} ms |", flush=True)
        if grows > STEEPEST:
            steep.append(name)
    fapilog.shutdown(10)
    print(f"\n{len(names)} texts; growing faster than their length: {', '.join(steep) or 'none'}")
    return 1 if steep else 0


if __name__ == "__main__":
    sys.exit(main())
