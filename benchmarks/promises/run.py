"""Compares what libraries do in a burst, in an outage, at the end of a process, and with secrets.

    python benchmarks/promises/run.py [--only SCENE]...

Prints one table per scene.  Exits with 1 if a scene breaks.  Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from environments import HERE, python_of
from measure import clean_environment
from run import machine, say, table

from promises.backend import Backend, copies_in_file, free_port
from promises.libraries import LIBRARIES
from promises.scenes import HARMLESS, SECRETS, SHAPES

ENVIRONMENTS = {
    "OpenTelemetry": "peers",
    "structlog": "peers",
    "loguru": "peers",
    "logfire": "logfire",
}
SPOOLED = "fapilog, spool"
FILES = ("fapilog, file", "structlog", "loguru")
TIMEOUT = 180
#: Seconds without a new record after which no more are expected; retries wait up to 30 s.
QUIET, QUIET_AFTER_OUTAGE = 3.0, 32.0

Row = list[str]


@dataclass
class Stage:
    """Where one library plays one scene: a port for the backend, and a directory."""

    library: str
    directory: Path
    port: int
    records: int

    @contextlib.contextmanager
    def played(self, scene: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Start the library's process, and wait for its end when the block ends."""
        request = {
            "scene": scene,
            "endpoint": f"http://127.0.0.1:{self.port}",
            "directory": str(self.directory),
            "options": {"records": self.records, **options},
        }
        python = python_of(ENVIRONMENTS.get(self.library, "self"))
        with (
            (self.directory / "stderr").open("a") as errors,
            subprocess.Popen(
                [python, "-m", "promises.scenes", self.library, json.dumps(request)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.directory,
                env={**clean_environment(), "PYTHONPATH": str(HERE)},
            ) as process,
        ):
            try:
                yield process
                process.communicate(timeout=TIMEOUT)
            finally:
                process.kill()

    def facts(self, process: subprocess.Popen[str]) -> dict[str, float]:
        """Return what the process prints when it has logged everything."""
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            errors = (self.directory / "stderr").read_text()[-2000:]
            raise SystemExit(f"{self.library} broke:\n{errors}")
        return dict(json.loads(line))

    def copies(self, backend: Backend) -> Counter[int]:
        return copies_in_file(self.directory / "app.jsonl") + backend.copies

    def share(self, copies: Counter[int]) -> str:
        """Return the share of the records that have arrived, and the copies beyond the first."""
        resent = sum(copies.values()) - len(copies)
        more = f" and {resent:,} twice" if resent else ""
        percent = 100 * len(copies) / self.records
        shown = f"{percent:.1f}" if len(copies) < self.records else "100"
        return f"{shown} %{more}"


@contextlib.contextmanager
def staged(library: str, records: int) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="fapilog-promises-") as directory:
        yield Stage(library, Path(directory), free_port(), records)


@contextlib.contextmanager
def backend_of(stage: Stage) -> Iterator[Backend]:
    backend = Backend(stage.port)
    try:
        yield backend
    finally:
        backend.stop()


def burst(library: str, records: int) -> Row:
    """Log as fast as one loop can, then flush."""
    with staged(library, records) as stage, backend_of(stage) as backend:
        with stage.played("burst") as process:
            facts = stage.facts(process)
        backend.settle(records, QUIET)
        return [library, stage.share(stage.copies(backend)), f"{facts['cpu_us']:.1f} us"]


def outage(library: str, records: int) -> Row:
    """Log for ten seconds while nothing listens; then the backend comes back."""
    with staged(library, records) as stage, stage.played("outage", seconds=10) as process:
        stage.facts(process)
        with backend_of(stage) as backend:
            backend.settle(records, QUIET_AFTER_OUTAGE)
            process.communicate("\n", timeout=TIMEOUT)
            returned = stage.share(backend.copies)
    return [library, returned, restart(library, records)]


def restart(library: str, records: int) -> str:
    """End a process while nothing listens, then start the next one when the backend is back."""
    with staged(library, records) as stage:
        with stage.played("ends", seconds=2, waits=False) as process:
            stage.facts(process)
        with backend_of(stage) as backend:
            following(stage, backend)
            return stage.share(backend.copies)


def following(stage: Stage, backend: Backend) -> None:
    """Run the next process of the service, which logs nothing and delivers what it finds."""
    with stage.played("ends", records=0, seconds=0, waits=True) as process:
        stage.facts(process)
        backend.settle(stage.records, QUIET)
        process.communicate("\n", timeout=TIMEOUT)


def ends(library: str, records: int) -> Row:
    """Log for two seconds, then end: by itself, by SIGTERM without a handler, by SIGKILL."""
    cells = []
    for end in ("normal", "SIGTERM", "SIGKILL"):
        with staged(library, records) as stage, backend_of(stage) as backend:
            with stage.played("ends", seconds=2, waits=end != "normal") as process:
                stage.facts(process)
                if end != "normal":
                    (process.terminate if end == "SIGTERM" else process.kill)()
            if library.startswith(SPOOLED):  # the next process delivers what the spool holds
                following(stage, backend)
            backend.settle(0 if library in FILES else records, QUIET)
            cells.append(stage.share(stage.copies(backend)))
    return [library, *cells]


def secret(library: str, _records: int) -> Row:
    """Log fourteen secrets and seven harmless values, and search what arrives."""
    with staged(library, 1) as stage, backend_of(stage) as backend:
        with stage.played("secret"):
            pass
        time.sleep(1)
        arrived = b"".join(backend.bodies)
        file = stage.directory / "app.jsonl"
        arrived += file.read_bytes() if file.exists() else b""
    leaked = [name for name in SECRETS if SHAPES.get(name, name).encode() in arrived]
    masked = [name for name in HARMLESS if name.encode() not in arrived]
    return [
        library,
        f"{len(leaked)} of {len(SECRETS)}",
        f"{len(masked)} of {len(HARMLESS)}",
        listed(leaked, SECRETS),
        listed(masked, HARMLESS),
    ]


def listed(found: list[str], wanted: list[str]) -> str:
    """Return the words of the names, or ``all``."""
    words = ", ".join(name.partition("-")[2] for name in found)
    return "all" if len(found) == len(wanted) else words or "none"


@dataclass(frozen=True)
class Scene:
    """One table."""

    title: str
    headings: tuple[str, ...]
    play: Callable[[str, int], Row]
    libraries: tuple[str, ...]
    records: int


REMOTE = ("fapilog", SPOOLED, "OpenTelemetry", "logfire")
SCENES = {
    "burst": Scene(
        "A burst: 50,000 records in one loop, default options",
        ("library", "arrived", "CPU time of a call"),
        burst,
        tuple(name for name in LIBRARIES if not name.startswith(SPOOLED)),
        50_000,
    ),
    "outage": Scene(
        "An outage: 10,000 records in ten seconds while nothing listens",
        ("library", "arrived when it was over", "arrived after a restart"),
        outage,
        REMOTE,
        10_000,
    ),
    "exit": Scene(
        "The end of a process: 1,000 records in two seconds, then the end at once",
        ("library", "normal end", "SIGTERM", "SIGKILL"),
        ends,
        tuple(LIBRARIES),
        1_000,
    ),
    "secret": Scene(
        "Secrets: fourteen secrets and seven harmless values, default options",
        ("library", "secrets that arrived", "harmless values masked", "arrived", "masked"),
        secret,
        ("fapilog", "OpenTelemetry", "logfire", "structlog", "loguru"),
        0,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SCENES, help="play this scene")
    arguments = parser.parse_args()
    before = machine()
    tables = []
    for name in arguments.only or SCENES:
        scene = SCENES[name]
        rows = []
        for library in scene.libraries:
            say(f"{name}: {library}")
            rows.append(scene.play(library, scene.records))
        tables.append(f"{scene.title}\n\n{table(scene.headings, rows)}")
    print(f"{before}\n\n" + "\n\n".join(tables))


if __name__ == "__main__":
    main()
