"""Shows what libraries print on a developer's terminal for the same program.

    python benchmarks/consoles.py [--columns 100] [--show LIBRARY]

Prints how many lines of the terminal each library needs for six records, and for one exception
with its cause.  ``--show`` prints what a library writes, with its colours.  Each library is set up
as its own documentation recommends for development.  Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from environments import python_of
from measure import clean_environment
from run import say, table

REQUEST = {"request_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}
ORDER = {
    "id": 1234,
    "customer": {"name": "Ada Lovelace", "city": "Lyon"},
    "lines": [{"sku": "A-17", "count": 2}, {"sku": "B-3", "count": 1}],
}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r")
Bind = Callable[..., AbstractContextManager[object]]


def fapilog() -> tuple[Any, Bind]:
    import fapilog

    fapilog.configure(level="debug")
    return fapilog.get_logger("shop"), fapilog.bind


def structlog() -> tuple[Any, Bind]:
    import structlog

    return structlog.get_logger(), structlog.contextvars.bound_contextvars


def loguru() -> tuple[Any, Bind]:
    """The default format, and the named values after the message."""
    from loguru import logger
    from loguru._defaults import LOGURU_FORMAT

    logger.remove()
    logger.add(sys.stderr, format=LOGURU_FORMAT + " {extra}")
    return logger, logger.contextualize


def rich() -> tuple[Any, Bind]:
    """The module ``logging``, which has no named values: they are text in the message."""
    import logging

    from rich.logging import RichHandler

    class Fields(logging.LoggerAdapter[logging.Logger]):
        def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
            known = {name: kwargs.pop(name) for name in ("exc_info",) if name in kwargs}
            return " ".join([str(msg), *(f"{k}={v}" for k, v in kwargs.items())]), known

    handler = RichHandler(rich_tracebacks=True)
    logging.basicConfig(level="NOTSET", format="%(message)s", datefmt="[%X]", handlers=[handler])
    return Fields(logging.getLogger("shop"), {}), lambda **_: nullcontext()


def logfire() -> tuple[Any, Bind]:
    """Named values are shown if the message mentions them."""
    import logfire

    logfire.configure(send_to_logfire=False, console=logfire.ConsoleOptions(min_log_level="debug"))

    class Templates:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda message, **values: getattr(logfire, name)(
                " ".join([message, *(f"{{{key}=}}" for key in values)]), **values
            )

    return Templates(), lambda **_: nullcontext()


LIBRARIES = {
    "fapilog": (fapilog, "self"),
    "structlog": (structlog, "self"),
    "loguru": (loguru, "self"),
    "rich": (rich, "self"),
    "logfire": (logfire, "logfire"),
}


def program(name: str, part: str) -> None:
    log, bind = LIBRARIES[name][0]()
    if part in ("records", "all"):
        log.info("import started", file="orders.csv")
        with bind(**REQUEST):
            log.debug("query", sql="INSERT INTO orders", rows=1, seconds=0.0018234)
            log.warning("stock low", sku="A-17", left=2, warehouse="Lyon Sud", threshold=5)
            log.info("order placed", total=59.9, order=ORDER)
            log.info("the report:\n  scan orders\n  group by day\n  sort by total")
        log.info("import finished", orders=1, seconds=0.31830988618379)
    if part in ("exception", "all"):
        with bind(**REQUEST):
            try:
                pay(1234)
            except OSError:
                log.exception("payment failed", order_id=1234)


def pay(order_id: int) -> bytes:
    return charge(f"http://127.0.0.1:1/charges/{order_id}")


def charge(url: str) -> bytes:
    return urllib.request.urlopen(url, timeout=1).read()


def output(name: str, part: str, columns: int) -> str:
    """Return what the program writes to a terminal."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    hidden = ("COLUMNS", "NO_COLOR", "FORCE_COLOR")
    environment = {k: v for k, v in clean_environment().items() if k not in hidden}
    environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    if LIBRARIES[name][1] == "self":
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[1])
    command = [python_of(LIBRARIES[name][1]), __file__, "--program", name, part]
    with tempfile.TemporaryDirectory() as directory:
        child = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=directory,
            env=environment,
        )
        os.close(terminal)
        written = b""
        while data := _read(main):
            written += data
        os.close(main)
        if child.wait(60):
            sys.exit(written.decode())
    return written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux reports that no process has the terminal open as an error
        return b""


def lines(text: str, columns: int) -> int:
    """Return how many lines of a terminal ``text`` needs."""
    return sum(max(-(-len(line) // columns), 1) for line in CONTROL.sub("", text).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--show", choices=LIBRARIES)
    parser.add_argument("--program", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        program(*options.program)
    elif options.show:
        print(output(options.show, "all", options.columns), end="")
    else:
        rows = []
        for name in LIBRARIES:
            say(name)
            parts = (output(name, part, options.columns) for part in ("records", "exception"))
            rows.append([name, *(str(lines(text, options.columns)) for text in parts)])
        print(table(("library", "lines for six records", "lines for an exception"), rows))


if __name__ == "__main__":
    main()
