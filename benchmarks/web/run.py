"""Measures the cost of logging in a FastAPI application, for fapilog and its peers.

    python benchmarks/web/run.py [--seconds N] [--repeats N] [--json FILE]

Needs ``wrk``.  Exits with 0 even if figures miss their limits, and with 1 if a
measurement breaks.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from environments import python_of
from measure import backend, clean_environment
from run import machine, say, table

from web.apps import APPS

#: The environment of each contestant.
ENVIRONMENTS = {"otel": "web-peers", "structlog": "web-peers", "older": "web-older"}
CONNECTIONS = 16
#: The records per request; contestants that are not listed have one.
RECORDS = {"bare": 0, "spans": 0, "fapilog": 2, "fapilog, spans": 2, "older": 2}
HEADINGS = ("application", "requests/s", "p99", "CPU per request", "added", "records arrived")
#: Ratios of added time: the numerator, its floor, the denominator, its floor, and the limit.
RATIOS = (
    ("fapilog", "bare", "otel", "bare", 0.4),
    ("fapilog", "bare", "older", "bare", 0.2),
    ("fapilog", "bare", "structlog", "bare", None),
    ("fapilog, spans", "spans", "otel", "spans", None),
)
TICKS = 100  # of the kernel's clock per second


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def served(name: str, endpoint: str, directory: str) -> Iterator[tuple[int, str]]:
    """Serve one application, and yield the server's process id and URL."""
    command = [python_of(ENVIRONMENTS.get(name, "self")), "-m", "web.serve"]
    with subprocess.Popen(
        [*command, name, endpoint, directory],
        stdout=subprocess.PIPE,
        env=clean_environment(),
        cwd=directory,
    ) as process:
        assert process.stdout
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}/orders/42"
            yield process.pid, url
        finally:
            process.terminate()
            process.wait(30)


def load(url: str, seconds: int) -> tuple[int, float, float]:
    """Return the load tool's requests, requests per second, and p99 in ms."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"the server failed:\n{out}")
    requests = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    assert requests
    assert rate
    assert p99
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]]
    return int(requests[1]), float(rate[1]), float(p99[1]) * scale


def arrived(endpoint: str, directory: str) -> int:
    """Return the number of records that the receiver has parsed or that are in files."""
    with urllib.request.urlopen(endpoint, timeout=30) as answer:
        records = int(json.load(answer)["records"])
    files = (path for path in Path(directory).iterdir() if path.is_file())
    return records + sum(path.read_bytes().count(b"\n") for path in files)


def settle(endpoint: str, directory: str) -> int:
    """Wait until no more records arrive, and return how many there are."""
    deadline, seen = time.monotonic() + 60, -1
    while (now := arrived(endpoint, directory)) != seen and time.monotonic() < deadline:
        seen = now
        time.sleep(2)  # longer than any contestant keeps a batch
    return now


def measure(name: str, seconds: int) -> dict[str, float]:
    """Serve, warm up, load, and wait for the records, so the cost includes delivery."""
    with (
        tempfile.TemporaryDirectory(prefix="fapilog-bench-") as directory,
        backend("otlp", {}) as endpoint,
        served(name, endpoint, directory) as (pid, url),
    ):
        load(url, 1)
        before, cpu = settle(endpoint, directory), cpu_seconds(pid)
        requests, rate, p99 = load(url, seconds)
        after = settle(endpoint, directory)
        cpu = cpu_seconds(pid) - cpu
    wanted = requests * RECORDS.get(name, 1)
    share = (after - before) / wanted if wanted else 1.0
    return {"rate": rate, "p99_ms": p99, "cpu_us": cpu / requests * 1e6, "arrived": share}


def median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def report(results: dict[str, list[dict[str, float]]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the two tables."""
    cpu = {name: median(runs, "cpu_us") for name, runs in results.items()}
    rows = [
        [
            name,
            f"{median(runs, 'rate'):,.0f}",
            f"{median(runs, 'p99_ms'):.1f} ms",
            f"{cpu[name]:.0f} us",
            "" if name == "bare" else f"{cpu[name] - cpu['bare']:.0f} us",
            "" if RECORDS.get(name, 1) == 0 else f"{median(runs, 'arrived'):.0%}",
        ]
        for name, runs in results.items()
    ]
    ratios = []
    for ours, floor, theirs, their_floor, must in RATIOS:
        ratio = (cpu[ours] - cpu[floor]) / (cpu[theirs] - cpu[their_floor])
        ratios.append(
            [
                f"{ours} - {floor}",
                f"{theirs} - {their_floor}",
                f"{ratio:.3g}",
                "" if must is None else f"≤ {must}",
                "" if must is None else "yes" if ratio <= must else "NO",
            ]
        )
    return rows, ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=6, help="seconds of load per measurement")
    parser.add_argument("--repeats", type=int, default=5, help="servers per application")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print(
            "wrk is missing: apt-get install wrk, or brew install wrk",
            file=sys.stderr,
        )
        return 1
    before = machine()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in APPS}
    for turn in range(arguments.repeats):
        for name, runs in results.items():
            say(f"{turn + 1}/{arguments.repeats} {name}")
            runs.append(measure(name, arguments.seconds))
    rows, ratios = report(results)
    print(f"{before}, {CONNECTIONS} connections\n\n{table(HEADINGS, rows)}\n")
    print(table(("added by", "against", "ratio", "must", "reached"), ratios))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": before, "runs": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
