"""Measures the time of one record in each stage, with the library's own functions.

    python benchmarks/breakdown.py [--sink otlp|loki|file] [--rounds N]

The pipeline's worker stays asleep, and this program does its steps, 512 records
at a time, so every stage is timed alone and warm.  Times are CPU time of this
thread, without the wait for the backend's answer.  The table of ``run.py`` shows
more than the sum, because it includes the queue, the ledger and switches
between threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from child import active_span
from measure import backend

import fapilog
from fapilog.delivery.ledger import Drops
from fapilog.sinks import FileSink, LokiSink, OTLPSink, Sink

BATCH = 512

STAGES = {
    "front end": "the log call: level, time, span, snapshot of values, queue",
    "process": "build the record, search it for secrets, apply limits, measure its size",
    "encode": "encode the record as OTLP bytes, or as a line",
    "send": "frame and post the batch, or write it",
}


class Stopwatch:
    """CPU time of this thread, by stage, in nanoseconds per record."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {stage: [] for stage in STAGES}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.thread_time_ns()
        yield
        self.samples[name].append((time.thread_time_ns() - start) / BATCH)

    def medians(self) -> dict[str, float]:
        return {stage: statistics.median(samples) for stage, samples in self.samples.items()}


def one_batch(watch: Stopwatch, runtime: fapilog.Runtime, sink: Sink[Any]) -> None:
    pipeline = runtime.pipeline
    log = runtime.get_logger("bench")
    with watch.stage("front end"):
        for i in range(BATCH):
            log.info("order placed", order_id=i, total=9.99, sku="A-1", customer="c-7")
    entries = list(pipeline.queue)
    pipeline.queue.clear()
    with watch.stage("process"):
        records = pipeline.processing.records(entries, Drops())
    with watch.stage("encode"):
        items = [sink.encode(record) for record in records]
    with watch.stage("send"):
        sink.send(items, 10)


def measure(kind: str, rounds: int) -> dict[str, float]:
    with (
        backend(f"fapilog-{kind}", {}) as endpoint,
        tempfile.TemporaryDirectory() as directory,
        active_span(),
    ):
        file = Path(directory, "bench.log")
        sinks: dict[str, Callable[[], Sink[Any]]] = {
            "otlp": lambda: OTLPSink(f"{endpoint}/v1/logs"),
            "loki": lambda: LokiSink(endpoint),
            "file": lambda: FileSink(file),
        }
        sink = sinks[kind]()
        runtime = fapilog.Runtime(sinks=[sink])
        # Log calls do not wake a worker that is not marked as idle.
        runtime.pipeline.worker.idle = False
        warm, watch = Stopwatch(), Stopwatch()
        for watching in [warm] * 20 + [watch] * rounds:
            one_batch(watching, runtime, sink)
        runtime.shutdown(5)
    return watch.medians()


def table(medians: dict[str, float]) -> str:
    total = sum(medians.values())
    lines = ["| stage | us | share | work |", "| --- | --- | --- | --- |"]
    for stage, value in medians.items():
        lines.append(f"| {stage} | {value / 1000:.2f} | {value / total:.0%} | {STAGES[stage]} |")
    return "\n".join([*lines, f"| sum | {total / 1000:.2f} | | |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sink", choices=("otlp", "loki", "file"), default="otlp")
    parser.add_argument("--rounds", type=int, default=400, help="batches of 512 records")
    arguments = parser.parse_args()
    print(f"CPU per record, four attributes, {arguments.sink}\n")
    print(table(measure(arguments.sink, arguments.rounds)))


if __name__ == "__main__":
    main()
