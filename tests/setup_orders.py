"""Every order in which a service may set its logging up, each in a process forked for it.

    python -m tests.setup_orders

Prints the orders in which a record did not arrive exactly once at each sink.
"""

from __future__ import annotations

import copy
import itertools
import logging
import logging.config
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from opentelemetry.instrumentation.logging import LoggingInstrumentor
from uvicorn.config import LOGGING_CONFIG

import fapilog
import fapilog.bridges.stdlib
import fapilog.otel.provider
import fapilog.runtime.runtime
from fapilog.sinks import MemorySink

SINKS = (MemorySink(name="one"), MemorySink(name="two"))
ACCESS = ("127.0.0.1:1", "GET", "/orders", "1.1", 200)


def dict_config() -> None:
    logging.config.dictConfig(copy.deepcopy(LOGGING_CONFIG))


def own_handler() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"fapilog": {"class": "fapilog.Handler"}},
            "loggers": {"app": {"handlers": ["fapilog"], "level": "INFO"}},
        }
    )


STEPS: dict[str, Callable[[], object]] = {
    "install_stdlib": lambda: fapilog.install_stdlib("info"),
    "uvicorn": dict_config,
    "basicConfig": lambda: logging.basicConfig(level=logging.INFO),
    "instrument": lambda: LoggingInstrumentor().instrument(skip_dep_check=True),
    "configure": lambda: fapilog.configure(sinks=SINKS, level="info"),
    "handler": own_handler,
}


def wrong_counts(steps: Sequence[str], *, twice: bool) -> list[str]:
    """Set up, log, and return what did not arrive exactly once."""
    for step in [*steps, *steps] if twice else steps:
        STEPS[step]()
    logging.getLogger().warning("root")
    logging.getLogger("app.orders").warning("app")
    expected = ["root", "app"]
    if "install_stdlib" in steps:  # else nothing sees loggers that do not propagate
        logging.getLogger("uvicorn.error").warning("error")
        logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *ACCESS)
        expected += ["error", '127.0.0.1:1 - "GET /orders HTTP/1.1" 200']
    fapilog.flush(60)
    wrong = []
    for sink in SINKS:
        counts = Counter(record.body for record in sink.records)
        wrong += [f"{sink.name}: {text} x {counts[text]}" for text in expected if counts[text] != 1]
    return wrong


def play(steps: Sequence[str], *, twice: bool) -> list[str]:
    """Return what was wrong in a process of its own."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            report = "\n".join(wrong_counts(steps, twice=twice))
        except BaseException as error:
            report = repr(error)
        os.write(into, report.encode())
        os._exit(0)
    os.close(into)
    with open(out, encoding="utf-8") as pipe:
        report = pipe.read()
    _, status = os.waitpid(child, 0)
    return report.splitlines() + ([f"exit status {status}"] if status else [])


#: What is played: the steps, and whether each is done twice.
SUITES: dict[str, tuple[tuple[str, ...], bool]] = {
    "all": (("install_stdlib", "uvicorn", "basicConfig", "instrument", "configure"), False),
    "twice": (("install_stdlib", "uvicorn", "instrument", "configure"), True),
    "handler": (("install_stdlib", "handler", "instrument", "configure"), False),
    "no bridge": (("uvicorn", "basicConfig", "instrument", "configure"), False),
}


def main() -> int:
    with fapilog.Runtime(sinks=[MemorySink()]):  # loads what would be loaded in each fork
        pass
    for name, (steps, twice) in SUITES.items():
        orders = list(itertools.permutations(steps))
        problems = [
            f"{name}: {' > '.join(order)} | {problem}"
            for order in orders
            for problem in play(order, twice=twice)
        ]
        print(*problems, f"{name}: {len(orders)} orders", sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
