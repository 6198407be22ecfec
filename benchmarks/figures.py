"""Defines every figure of the table: its measurement, its peer, and its limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Scenario:
    """How often and with which options a scenario runs.

    Attributes:
        contestants: the names of the contestants in the order of their turns.  A
            comma and some words may follow a name, so one contestant can take
            part twice with different options.
        options: the options of the scenario's process.
        quick: the options that replace these with ``--quick``.
        repeats: the number of fresh processes per contestant.
        module: the module in ``scenarios/``; if empty, the scenario's name.
        overrides: the options of single contestants, for which the common number
            would take minutes or no time at all.
    """

    contestants: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    repeats: int = 5
    module: str = ""
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One number that a scenario reports.

    Attributes:
        key: the number's name in the report.
        unit: the unit that is printed.
        scale: the factor from the reported to the printed unit.
        higher: whether a higher value is better.
    """

    key: str
    unit: str
    scale: float = 1.0
    higher: bool = False


@dataclass(frozen=True)
class Figure:
    """One row of the table: ``ratio = ours / peer`` of the medians.

    Attributes:
        name: the name of the figure.
        scenario: a key of :data:`SCENARIOS`.
        metric: the number that is compared.
        ours: the contestant in the numerator.
        peer: the contestant in the denominator; None if our value itself counts.
        must: the limit for the ratio, or for the value without a peer; None if
            the row is for information.
        aim: the limit that the figure should reach.
        against: the metric of the denominator, if it is a different one.
    """

    name: str
    scenario: str
    metric: Metric
    ours: str
    peer: str | None
    must: float | None = None
    aim: float | None = None
    against: Metric | None = None

    def met(self, value: float) -> bool | None:
        """Whether the ratio or value reaches ``must``; None without a limit."""
        if self.must is None:
            return None
        return value >= self.must if self.metric.higher else value <= self.must


#: A queue for every record of a run, for libraries that would drop records.
#: fapilog waits for room by default and does not need it.
ALL: Final = {"queue": 200_000}

#: The states of the backend in "backend_down", each without and with a spool.
STATES: Final = ("up", "refusing", "silent")


def in_state(state: str, *, spooled: bool) -> str:
    """Return the name of the contestant that logs to a backend in this state."""
    return f"fapilog-otlp, {state}{', spool' if spooled else ''}"


SCENARIOS: Final = {
    "call": Scenario(
        ("fapilog-otlp", "structlog-file", "otel-otlp", "loguru-file"),
        {"chunks": 250},
        {"chunks": 80},
    ),
    "throughput": Scenario(
        ("fapilog-otlp", "otel-otlp", "fapilog-file", "structlog-file", "loguru-file"),
        {"records": 100_000},
        {"records": 40_000},
        overrides={"otel-otlp": ALL},
    ),
    "metrics_call": Scenario(
        ("fapilog-file-metrics", "fapilog-file"),
        {"chunks": 250},
        {"chunks": 80},
        module="call",
    ),
    "metrics": Scenario(
        ("fapilog-file-metrics", "fapilog-file"),
        {"records": 100_000},
        {"records": 40_000},
        module="throughput",
    ),
    "older": Scenario(
        ("fapilog-file", "older-file", "older-file-bare"),
        {"records": 20_000},
        {"records": 5_000},
        module="throughput",
        overrides={
            "fapilog-file": {"records": 100_000},
            "older-file": ALL,
            "older-file-bare": ALL,
        },
    ),
    "open_loop": Scenario(
        ("fapilog-otlp", "otel-otlp", "nothing"), {"rate": 5000, "seconds": 10}, {"seconds": 4}
    ),
    "disabled": Scenario(("fapilog-otlp",), {"rounds": 30}, {"rounds": 10}),
    "memory": Scenario(
        ("fapilog-otlp",),
        {"early": 100_000, "late": 1_000_000},
        {"early": 50_000, "late": 250_000},
        repeats=2,
    ),
    # "early" is measured when the queue (32,768 records) and the backlog (64 MiB) are full.
    "outage": Scenario(
        ("fapilog-otlp",),
        {"early": 300_000, "late": 1_000_000, "backend": "refusing"},
        {"late": 500_000},
        repeats=2,
        module="memory",
    ),
    "import_time": Scenario(("fapilog", "opentelemetry.sdk._logs"), repeats=11),
    "burst": Scenario(("fapilog-otlp", "otel-otlp"), {"records": 50_000}),
    "loki": Scenario(
        ("fapilog-loki", "loki-logger-handler", "inuits-loki"),
        {"records": 100_000},
        {"records": 40_000},
        module="throughput",
        overrides={"loki-logger-handler": {"records": 40_000}, "inuits-loki": {"records": 40_000}},
    ),
    "spool_append": Scenario(("fapilog",), {"batches": 1000}, {"batches": 300}),
    "spool_always": Scenario(
        ("fapilog-otlp", "fapilog-otlp, spool"),
        {"records": 200_000},
        {"records": 60_000},
        module="throughput",
        overrides={"fapilog-otlp, spool": {"spool": "always"}},
    ),
    "backend_down": Scenario(
        tuple(in_state(state, spooled=spooled) for spooled in (False, True) for state in STATES),
        {"rate": 5000, "seconds": 10},
        {"seconds": 4},
        module="open_loop",
        overrides={
            in_state(state, spooled=spooled): {
                "backend": state,
                "spool": "overflow" if spooled else "",
            }
            for spooled in (False, True)
            for state in STATES
        },
    ),
}

CALL: Final = Metric("call_ns", "us", 1e-3)
RATE: Final = Metric("records_per_s", "/s", higher=True)
CPU: Final = Metric("cpu_us", "us")
LATE: Final = Metric("intended_p999_ns", "us", 1e-3)
TAIL: Final = Metric("call_p999_ns", "us", 1e-3)
DISABLED: Final = Metric("disabled_ns", "ns")
EMPTY: Final = Metric("empty_ns", "ns")
RSS_LATE: Final = Metric("late_mib", "MiB")
RSS_EARLY: Final = Metric("early_mib", "MiB")
IMPORT: Final = Metric("import_ms", "ms")
APPEND: Final = Metric("append_us", "us")
ARRIVED: Final = Metric("arrived_percent", "%", higher=True)

OTLP: Final = "fapilog-otlp"
FILE: Final = "fapilog-file"
METRICS: Final = "fapilog-file-metrics"
LOKI: Final = "fapilog-loki"


def down_figures(name: str, metric: Metric) -> Iterator[Figure]:
    """Compare a backend that is down with one that is up, for both kinds of outage."""
    for spooled in (False, True):
        up = in_state("up", spooled=spooled)
        for state in STATES[1:]:
            ours = in_state(state, spooled=spooled)
            what = f"{name}, backend {state}{', spool' if spooled else ''}"
            yield Figure(what, "backend_down", metric, ours, up, 1.5)


FIGURES: Final = (
    Figure("call", "call", CALL, OTLP, "structlog-file", 0.35, 0.25),
    Figure("call", "call", CALL, OTLP, "otel-otlp", 0.15, 0.08),
    Figure("call", "call", CALL, OTLP, "loguru-file"),
    Figure("delivered", "throughput", RATE, OTLP, "otel-otlp", 6, 10),
    Figure("delivered to a file", "throughput", RATE, FILE, "structlog-file", 1.2, 1.5),
    Figure("delivered to a file", "throughput", RATE, FILE, "loguru-file"),
    Figure("call, metrics exported", "metrics_call", CALL, METRICS, FILE, 1.25, 1.05),
    Figure("CPU per record, metrics exported", "metrics", CPU, METRICS, FILE, 1.25, 1.1),
    Figure("delivered to a file", "older", RATE, FILE, "older-file", 30, 40),
    Figure("delivered to a file", "older", RATE, FILE, "older-file-bare", 30, 40),
    Figure("CPU per record", "throughput", CPU, OTLP, "otel-otlp", 0.16, 0.10),
    Figure("CPU per record, file", "throughput", CPU, FILE, "structlog-file"),
    Figure("p99.9 at 5,000/s, from due time", "open_loop", LATE, OTLP, "otel-otlp", 0.10, 0.03),
    Figure("p99.9 at 5,000/s, from due time", "open_loop", LATE, OTLP, "nothing"),
    Figure("p99.9 at 5,000/s, call alone", "open_loop", TAIL, OTLP, "otel-otlp"),
    Figure("disabled call / empty method", "disabled", DISABLED, OTLP, OTLP, 2.0, 1.3, EMPTY),
    Figure("RSS, late / early", "memory", RSS_LATE, OTLP, OTLP, 1.05, 1.01, RSS_EARLY),
    Figure("RSS, backend down", "outage", RSS_LATE, OTLP, OTLP, 1.05, 1.01, RSS_EARLY),
    Figure("import", "import_time", IMPORT, "fapilog", "opentelemetry.sdk._logs", 1.3),
    Figure("arrived of a burst of 50,000", "burst", ARRIVED, OTLP, "otel-otlp"),
    Figure("delivered to Loki", "loki", RATE, LOKI, "loki-logger-handler", 8),
    Figure("delivered to Loki", "loki", RATE, LOKI, "inuits-loki", 8),
    Figure("CPU per record, Loki", "loki", CPU, LOKI, "loki-logger-handler"),
    Figure("append to the spool, per record", "spool_append", APPEND, "fapilog", None, 10),
    Figure("delivered, spool always", "spool_always", RATE, f"{OTLP}, spool", OTLP, 0.7),
    *down_figures("p99.9 of the call", TAIL),
    *down_figures("p99.9 from due time", LATE),
)
