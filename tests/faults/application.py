"""The application of a row: it logs numbered records through the public API, then ends.

    python tests/faults/application.py '{"sink": ..., "records": 3000, ...}'

It imports nothing of the suite, so it also runs with an installed fapilog.  It
reports to the suite in lines of JSON on standard output: ``logged`` when the
last call has returned, ``ledger`` while it waits to be killed, and ``report``
when fapilog is shut down.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stall import Stalls  # type: ignore[import-not-found]  # beside this file

CALLS_A_PAUSE = 20
#: The size of a sparse segment in bytes.
HOLE = 10 << 30
#: The number of the record that a second process logs, which no balance includes.
SECOND = 1_000_000


class Application:
    """Logs the records, and counts the exceptions that must not occur."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.calls: list[int] = []  # nanoseconds per call
        self.exceptions: list[str] = []
        self.drained: bool | None = None
        threading.excepthook = lambda hook: self.exceptions.append(repr(hook.exc_value))
        sys.unraisablehook = lambda hook: self.exceptions.append(repr(hook.exc_value))

    def log(self) -> None:
        log: Any = Spans() if IS_OF_SPANS else fapilog.get_logger("faults")
        first, count = self.options["first"], self.options["records"]
        bad_every = self.options["bad_every"]
        padding = "x" * self.options["padding"]
        tell("logging")
        due = time.monotonic()  # a slow machine catches up, so the average rate stays
        for n in range(first, first + count):
            call: Callable[..., None] = log.info
            if n % 200 == 199:
                call = log.critical
            elif n % 50 == 49:
                call = log.error
            more: dict[str, Any] = {"padding": padding}
            if bad_every and n % bad_every == bad_every - 1:
                more = {"padding": "x" * self.options["bad_padding"], "bad": True}
            began = time.perf_counter_ns()
            try:
                call("order placed", n=n, customer=f"c-{n:06}", **more)
            except BaseException as error:
                self.exceptions.append(repr(error))
            self.calls.append(time.perf_counter_ns() - began)
            if n % CALLS_A_PAUSE == 0:
                due += self.options["pause"]
                time.sleep(max(due - time.monotonic(), 0.0))
                if self.options["end"] == "killed logging":
                    tell("ledger", **ledger())
            if n - first + 1 == self.options["tampered_at"]:
                tamper(self.options)
        if IS_OF_SPANS and self.options["end"] in {"flush", "shutdown", "drained"}:
            flush_spans()  # at the exit and at SIGTERM, fapilog itself does so
        tell("logged", at=time.monotonic())

    def end(self) -> None:
        """Wait, end or be killed, as the row requires."""
        deadline = time.monotonic() + self.options["deadline"]
        try:
            if self.options["end"] in {"terminated", "killed", "killed logging"}:
                self.wait_to_be_killed()
            elif self.options["end"] == "drained":
                self.drained = self.wait_until_drained(deadline)
            elif self.options["end"] == "flush":
                self.drained = fapilog.flush(self.options["deadline"])
            if self.options["end"] != "exit":
                fapilog.shutdown(max(deadline - time.monotonic(), 0.1))
        except BaseException as error:
            self.exceptions.append(repr(error))

    def wait_to_be_killed(self) -> None:
        while True:
            tell("ledger", **ledger(), stall=stalls.longest * 1000)
            time.sleep(0.05)

    def wait_until_drained(self, deadline: float) -> bool:
        """Wait, without a flush, until memory and disk hold no records."""
        while time.monotonic() < deadline:
            now = ledger()
            if not now["pending"] and not now["spooled"]:
                return True
            time.sleep(0.05)
        return False

    def report(self) -> None:
        last: dict[str, Any] = {}
        stall = stalls.longest  # the ledger's cost is not part of the application's work
        try:
            last = ledger()
        except BaseException as error:
            self.exceptions.append(repr(error))
        tell(
            "report",
            **last,
            exceptions=self.exceptions,
            drained=self.drained,
            call=percentile(self.calls, 0.999) / 1000,  # microseconds
            memory=peak_memory(),
            stall=stall * 1000,  # milliseconds
        )


class Spans:
    """Ends a span per call, which the SDK's batch processor exports."""

    def info(self, name: str, **attributes: Any) -> None:
        with trace.get_tracer("faults").start_as_current_span(name, attributes=attributes):
            pass

    def error(self, name: str, **attributes: Any) -> None:
        with trace.get_tracer("faults").start_as_current_span(name, attributes=attributes) as span:
            span.set_status(trace.StatusCode.ERROR, name)

    critical = error


def configure_spans() -> None:
    """Configure fapilog and the SDK so that spans go to the backend of the row."""
    sink = {**options["sink"], "url": options["sink"]["url"] + "/v1/traces" * IS_OVER_HTTP}
    limits = sink["limits"]
    variables = {
        "ENDPOINT": sink["url"],
        "PROTOCOL": sink["protocol"],
        "TIMEOUT": f"{sink['timeout'] * 1000:.0f}",
        "CERTIFICATE": sink.get("certificate", ""),
        "CLIENT_CERTIFICATE": sink.get("client_certificate", ""),
        "CLIENT_KEY": sink.get("client_key", ""),
    }
    for name, value in variables.items():
        os.environ[f"OTEL_EXPORTER_OTLP_TRACES_{name}"] = value
    of_spans = {"batch_size": limits["count"], "schedule_delay": limits["delay"]}
    fapilog.configure(sinks=[], **of_spans, **options["settings"])
    processor = BatchSpanProcessor(SpanExporter(), schedule_delay_millis=20)
    provider = TracerProvider()
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


def flush_spans() -> None:
    """Let the SDK export the spans that still wait in its own queue."""
    provider: Any = trace.get_tracer_provider()
    provider.force_flush()


def tamper(options: dict[str, Any]) -> None:
    """Damage the files of the spool as another program might do."""
    spool = Path(options["settings"]["spool"]["directory"])
    how = options["tampering"]
    if how == "removed":
        shutil.rmtree(spool, ignore_errors=True)  # the spool may still write to it
    for path in spool.rglob("*.seg"):
        if how in {"truncated", "made sparse"}:
            os.truncate(path, HOLE if how == "made sparse" else 0)
    for name in ("cursor", "lock"):
        for path in spool.rglob(name):
            if how == f"{name} removed":
                path.unlink()
    if how == "lock removed":
        second = {**options, "first": SECOND, "records": 1, "end": "drained", "deadline": 10.0}
        second = {**second, "tampering": None, "tampered_at": 0}
        subprocess.run(
            [sys.executable, __file__, json.dumps(second)], check=True, stdout=subprocess.DEVNULL
        )


def tell(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


def ledger() -> dict[str, Any]:
    stats = asdict(fapilog.stats())
    sinks = stats.pop("sinks")
    if IS_OF_SPANS:
        stats = sinks["traces"]
        del stats["sinks"]
    return {"spooled": 0, "quarantined": 0, "adopted": 0, **stats}


def percentile(values: list[int], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed; 0 with too few values."""
    position = int(len(values) * share)
    return sorted(values)[position] if position < len(values) - 1 else 0.0


def peak_memory() -> float:
    """Return this program's memory in MiB; ``ru_maxrss`` would include its parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # macOS reports bytes


def make_sink(sink: dict[str, Any]) -> Any:
    from fapilog import sinks

    kind = {"otlp": "OTLPSink", "loki": "LokiSink"}[sink.pop("kind")]
    limits = sinks.BatchLimits(**sink.pop("limits"))
    return getattr(sinks, kind)(sink.pop("url"), limits=limits, **sink)


def hanging(real: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return a function that calls ``real`` a thousand times and never returns afterwards.

    Without ``real``, the first call does not return.
    """
    calls = iter(range(1000 if real else 0))

    def call(*args: Any) -> Any:
        if next(calls, None) is None:
            threading.Event().wait()
        assert real
        return real(*args)

    return call


def configure() -> None:
    settings = options["settings"]
    sinks = make_sinks(options)
    sink = next(one for one in sinks if hasattr(one, "encode"))
    hangs = options["hangs"]
    if hangs == "processor":
        settings["processors"] = [hanging(lambda record: record)]
    elif hangs == "encode":
        sink.encode = hanging(sink.encode)
    elif hangs == "close":
        sink.close = hanging()
    fapilog.configure(sinks=sinks, **settings)


def make_sinks(options: dict[str, Any]) -> list[Any]:
    """Return the sink, and a neighbour with another destination if the row has one."""
    made = [make_sink({**options["sink"]})]
    if options["neighbour"]:
        from fapilog.delivery.route import Route

        other = make_sink({**options["sink"], "url": "http://127.0.0.1:9"})
        made.insert(0 if options["neighbour"] == "first" else 1, Route(other, level="off"))
    return made


options = json.loads(sys.argv[1])
IS_OF_SPANS = options["sink"]["kind"] == "spans"
IS_OVER_HTTP = options["sink"]["protocol"] != "grpc" if IS_OF_SPANS else False
if options["tampering"] and not options["tampered_at"]:
    tamper(options)
application = Application(options)
stalls = Stalls()
# It is registered before fapilog's hook, so it runs after fapilog has ended.
atexit.register(application.report)


import fapilog  # noqa: E402 - see above

if IS_OF_SPANS:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from fapilog.otel import SpanExporter

    configure_spans()
else:
    configure()
stalls.start()
application.log()
application.end()
