"""Redaction takes time in proportion to the length of the text, also for hostile texts.

The tests compare growth, never time: on a busy machine, eight times the text may take
much more than eight times as long, but not 64 times.
"""

from __future__ import annotations

import random
import re
import threading
import time

import pytest

from fapilog.processors import RedactProcessor
from fapilog.processors.pieces import OVERLAP, PIECE, search
from tests.faults.stall import Stalls
from tests.stalls import HOSTILE, seconds

FACTOR = 8
#: Half of what quadratic time would take.
MOST = FACTOR * FACTOR / 2

#: Texts that the rules search, and near misses: hostile texts consist of them.
PARTS = (
    *(
        "token",
        "password",
        "api key",
        "cookie",
        "authorization",
        "sig",
        "x",
        "aB",
        "ab.cd-",
        "=",
        ":",
    ),
    *("%3D", "%3a", "%", "&", "?", ",", ";", " ", "\n", "\\n", "\t", "\\", '\\"', '"', "'", "'''"),
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "loc",
        "input_value=",
        "...",
        ", input_type=",
        " [type=",
        "[type=a]",
    ),
    *(" validation error for ", "For further information ", "  ", "| ", "msg", "\\n  ", "\n  "),
    *("eyJ", ".", "sk-", "ghp_", "AKIA", "SG.", "xoxb-", "://", "@", "/", "#", "bearer ", "basic "),
    *("-----BEGIN ", "-----END ", "PRIVATE KEY-----", "12345678:AA", "--", "=>", "None", "Digest "),
    *("/reset/", "a1", "A" * 16, "0" * 9, "\N{GRINNING FACE}", "\x1b"),
)


def growth(make, size: int) -> float:
    short = max(seconds(make(size)), 1e-5)
    return seconds(make(size * FACTOR)) / short


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_of_redaction_grows_with_the_length_of_the_text(name):
    grown = min(growth(HOSTILE[name], 4000) for _ in range(2))
    assert grown <= MOST, f"{FACTOR} times the text takes {grown:.0f} times as long"


@pytest.mark.slow
def test_a_search_for_the_worst_text_finds_none_that_takes_more_than_linear_time():
    chance = random.Random(20261129)

    def repeated(parts):
        piece = "".join(parts)
        return lambda size: ("token= input_value=" + piece * (size // len(piece) + 1))[:size]

    tried = [[chance.choice(PARTS) for _ in range(chance.randint(1, 6))] for _ in range(300)]
    # The slowest of many short texts are repeated to a length at which growth shows.
    slowest = sorted(tried, key=lambda parts: seconds(repeated(parts)(2000)), reverse=True)[:12]
    for parts in slowest:
        grown = min(growth(repeated(parts), 4000) for _ in range(2))
        assert grown <= MOST, (parts, grown)


def test_a_long_text_is_searched_in_pieces_between_which_other_threads_run():
    seen = []
    text = "x" * (PIECE * 4)
    pattern = re.compile("x")
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            seen.append(1)
            time.sleep(0)

    other = threading.Thread(target=run)
    other.start()
    try:
        found = sum(1 for _ in search(pattern, text))
    finally:
        stop.set()
        other.join()
    assert found == len(text)
    assert seen


@pytest.mark.parametrize("place", [0, PIECE - 30, PIECE - 1, PIECE, PIECE + 7, 2 * PIECE - 3])
@pytest.mark.parametrize("length", [10, OVERLAP - 1, OVERLAP + 1, PIECE, 2 * PIECE + 5])
def test_a_secret_across_the_border_of_pieces_is_masked_whole(place, length):
    secret = ("s3cr3t" * (length // 6 + 1))[:length]
    text = "." * place + f' password="{secret}" ' + "." * (3 * PIECE)
    (body,) = [RedactProcessor()(record_of(text)).body]
    assert body == text.replace(secret, "[REDACTED]")


@pytest.mark.parametrize("place", [PIECE - 400, PIECE - 20, PIECE - 1])
def test_a_private_key_across_the_border_of_pieces_is_masked_whole(place):
    key = "\n".join(["MIIEpAIBAAKCAQEA" * 4] * 200)
    pem = f"-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----"
    body = RedactProcessor()(record_of("-" * place + "\n" + pem + " after " + "." * PIECE)).body
    assert "MIIE" not in str(body)
    assert " after " in str(body)


def record_of(text: str):
    from fapilog import LogRecord

    return LogRecord(1, 1, 9, "INFO", text, {})


@pytest.mark.slow
def test_no_hostile_text_stops_another_thread_for_long():
    redactor = RedactProcessor()
    stalls = Stalls()
    stalls.start()
    for make in HOSTILE.values():
        redactor(record_of(make(65_000)))
    # The rules took seconds for such texts before they were linear.
    assert stalls.longest < 0.5
