"""Recycles and kills the workers of a server, and compares the sums at ``/metrics`` with the truth.

``python -m tests.fastapi.workers`` prints the table of `docs/metrics.md`.  Between two rounds of
requests, every worker is replaced: one of four by SIGKILL, the others by SIGTERM, which ends them
as ``--max-requests`` does.  Then workers are killed while they answer requests.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.processes import environment, kill

WORKERS = 4
SECONDS = 60
APPLICATION = """
import os, signal
from fastapi import FastAPI
import fapilog, fapilog_fastapi
from fapilog_fastapi.metrics import add_metrics_route

app = FastAPI()
fapilog.configure(sinks="file:records.jsonl", schedule_delay=0.05)
fapilog_fastapi.install(app, sample=0.0)
add_metrics_route(app)
log = fapilog.get_logger("shop")

@app.get("/work")
async def work():
    log.info("worked")
    return os.getpid()

@app.get("/die")
async def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
GUNICORN = (
    "gunicorn", "--bind", "127.0.0.1:PORT", "--workers", str(WORKERS), "--no-control-socket",
    "-k", "uvicorn_worker.UvicornWorker", "--preload", "served:app",
)  # fmt: skip
UVICORN = ("uvicorn", "--port", "PORT", "--workers", str(WORKERS), "served:app")
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    "accept": "application/openmetrics-text; version=1.0.0",
}


@dataclass
class Scrape:
    """The metrics that one scrape has shown, and the time that it took."""

    families: dict[str, Metric]
    seconds: float

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples ``name`` that have these labels."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def requests(self) -> float:
        return self.total("http_server_request_duration_seconds_count", http_route="/work")

    @property
    def accepted(self) -> float:
        return self.total("fapilog_records_accepted_total")

    @property
    def delivered(self) -> float:
        return self.total("fapilog_records_delivered_total", sink="file")

    def trace_ids(self) -> set[str]:
        samples = self.families["http_server_request_duration_seconds"].samples
        return {sample.exemplar.labels["trace_id"] for sample in samples if sample.exemplar}


@dataclass
class Server:
    """A server with several workers, whose metrics are in ``metrics``."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    answered: int = 0
    broken: int = 0
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS))

    @property
    def metrics(self) -> Path:
        return self.directory / "metrics"

    def get(self, path: str) -> str:
        """Return the body of the answer; wait for a server that starts."""
        deadline = time.monotonic() + SECONDS
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
            try:
                connection.connect()
            except ConnectionRefusedError:
                assert self.process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline
                time.sleep(0.02)
                continue
            with contextlib.closing(connection):
                connection.request("GET", path, headers=HEADERS)
                answer = connection.getresponse()
                body = answer.read().decode()
                assert answer.status == 200, body
                return body

    def work(self, requests: int) -> set[int]:
        """Send requests, four at a time; return the ids of the processes that answered."""
        pids = set(map(int, self.pool.map(lambda _: self.get("/work"), range(requests))))
        self.answered += requests
        return pids

    def work_and_die(self, requests: int) -> None:
        """Send requests, one of which kills the worker that reads it.

        The other requests that this worker was answering count as broken.
        """
        paths = ["/work"] * requests
        paths[random.randrange(requests)] = "/die"
        for path, was_answered in zip(paths, self.pool.map(self._try, paths), strict=True):
            if path == "/work":
                self.answered += was_answered
                self.broken += not was_answered

    def _try(self, path: str) -> bool:
        try:
            self.get(path)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def scrape(self) -> Scrape:
        began = time.monotonic()
        text = self.get("/metrics")
        seconds = time.monotonic() - began
        return Scrape({f.name: f for f in text_string_to_metric_families(text)}, seconds)

    def settled(self) -> Scrape:
        """Return the first scrape that shows every record as delivered."""
        deadline = time.monotonic() + SECONDS
        while (scrape := self.scrape()).delivered < self.answered:
            assert time.monotonic() < deadline, (scrape.delivered, self.answered)
            time.sleep(0.02)
        return scrape

    def workers(self) -> list[int]:
        """Return the ids of the workers, including those that are starting."""
        listed = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def ready_workers(self) -> list[int]:
        output = (self.directory / "output").read_text()
        line = "[{}] [INFO] Application startup complete."
        return [pid for pid in self.workers() if line.format(pid) in output]

    def replace_workers(self, signals: list[signal.Signals]) -> int:
        """End one worker per signal, and wait until they have ended; return their number.

        Waits until the workers have started: gunicorn loses a signal that reaches a worker earlier.
        """
        deadline = time.monotonic() + SECONDS
        while len(ready := self.ready_workers()) < len(signals):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ended = list(zip(ready, signals, strict=False))
        for pid, number in ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + SECONDS
        while {pid for pid, _ in ended} & set(self.workers()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return len(ended)


@contextlib.contextmanager
def serving(command: tuple[str, ...], directory: Path) -> Iterator[Server]:
    (directory / "served.py").write_text(APPLICATION)
    port = free_port()
    program, *words = (word.replace("PORT", str(port)) for word in command)
    with (
        open(directory / "output", "wb") as output,
        subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *words],
            stdout=output,
            stderr=output,
            cwd=directory,
            env=environment(FAPILOG_METRICS_DIRECTORY=str(directory / "metrics")),
        ) as process,
    ):
        server = Server(process, port, directory)
        try:
            yield server
            process.terminate()
            process.wait(SECONDS)
        finally:
            server.pool.shutdown()
            left = server.workers()
            kill(process)
            for pid in left:  # they outlive a server that is killed
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclass
class Result:
    """The figures of :func:`play`."""

    answered: int = 0
    counted: float = 0
    written: int = 0
    delivered: float = 0
    recycled: int = 0
    killed: int = 0
    scrapes: list[float] = field(default_factory=list)
    first_scrapes: list[float] = field(default_factory=list)
    most_files: int = 0
    most_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


def play(server: Server, recycles: int, requests: int = 40) -> Result:
    """Replace workers ``recycles`` times, and compare the sums after each round."""
    result = Result()
    server.get("/work")
    server.answered = 1
    while True:
        server.work(requests)
        before = server.settled()
        if before.requests != server.answered:
            result.wrong.append(f"{before.requests} of {server.answered} requests")
        files = list(server.metrics.iterdir())
        result.most_files = max(result.most_files, len(files))
        result.most_bytes = max(result.most_bytes, sum(file.stat().st_size for file in files))
        if result.recycled >= recycles:
            break
        signals = [signal.SIGKILL, *[signal.SIGTERM] * (WORKERS - 1)]
        random.shuffle(signals)
        ended = server.replace_workers(signals)
        result.recycled += ended
        result.killed += signals[:ended].count(signal.SIGKILL)
        after = server.scrape()
        result.scrapes.append(server.scrape().seconds)
        result.first_scrapes.append(after.seconds)
        for name in ("requests", "accepted", "delivered"):
            if getattr(after, name) != getattr(before, name):
                result.wrong.append(f"{name}: {getattr(before, name)}, then {getattr(after, name)}")
    result.answered, result.counted = server.answered, before.requests
    result.delivered = before.delivered
    result.written = len((server.directory / "records.jsonl").read_bytes().splitlines())
    return result


def play_under_load(server: Server, kills: int, requests: int = 40) -> Result:
    """Kill workers while they answer requests, and compare the sums after each round.

    A broken request may have been counted: the answer may have been lost.
    """
    result = Result(killed=kills)
    for _ in range(kills):
        server.work_and_die(requests)
        result.counted = server.scrape().requests
        if not server.answered <= result.counted <= server.answered + server.broken:
            words = f"{result.counted} of {server.answered} requests, {server.broken} broken"
            result.wrong.append(f"under load: {words}")
    result.answered = server.answered
    return result


def milliseconds(durations: list[float]) -> str:
    """Return the median and the largest of some durations in seconds."""
    return f"median {median(durations) * 1000:.0f} ms, largest {max(durations) * 1000:.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recycles", type=int, default=1000)
    recycles: int = parser.parse_args().recycles
    with tempfile.TemporaryDirectory() as name, serving(GUNICORN, Path(name)) as server:
        result = play(server, recycles)
        loaded = play_under_load(server, max(recycles // 20, 1))
    print(f"{WORKERS} workers of gunicorn, {result.recycled} replaced, {result.killed} by SIGKILL")
    print(f"requests answered   {result.answered:>8}   counted    {result.counted:>8.0f}")
    print(f"records written     {result.written:>8}   delivered  {result.delivered:>8.0f}")
    print(f"a scrape            {milliseconds(result.scrapes)}")
    print(f"first of a worker   {milliseconds(result.first_scrapes)}")
    print(f"most files          {result.most_files:>8}   {result.most_bytes / 1024:.0f} KiB")
    print(f"killed under load   {loaded.killed:>8}   broken     {server.broken:>8}")
    print(f"requests answered   {loaded.answered:>8}   counted    {loaded.counted:>8.0f}")
    wrong = [*result.wrong, *loaded.wrong]
    for one in wrong:
        print(f"WRONG: {one}")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
