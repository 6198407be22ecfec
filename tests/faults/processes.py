"""The processes of a row: the lives of the backend and the runs of the application."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.faults.rows import Life, Row, Run, Sink
from tests.faults.script import as_json

ROOT: Final = Path(__file__).resolve().parents[2]
#: The seconds after its deadline at which an application is killed, because it hangs.
HANGS: Final = 40.0
#: The files of certificates whose paths the application gets.
AUTHORITY: Final = "authority.pem"
CLIENT: Final = "client.pem"
#: The signal that the suite sends to a process that does not end by itself.
SIGNALS: Final = {
    "terminated": signal.SIGTERM,
    "killed": signal.SIGKILL,
    "killed logging": signal.SIGKILL,
}


def reserve_port() -> socket.socket:
    """Return a socket that reserves a port for a backend, so no other program can use it.

    The socket does not listen.  A backend binds to the same port, and so does the next
    backend after a kill.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def clean_environment(**more: str) -> dict[str, str]:
    """Return this environment without options of any library and without proxies."""
    foreign = ("OTEL_", "FAPILOG_", "GRPC_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    return {**kept, **more}


@dataclass(frozen=True)
class Certificates:
    """The certificates of one authority, as PEM files in a separate directory.

    Attributes:
        authority: the authority's certificate.
        server: a server's key and certificate.
        client: a client's key and certificate.
    """

    authority: str
    server: str
    client: str

    def put(self, directory: Path) -> None:
        """Replace the application's files in ``directory``, by renaming."""
        for source, name in ((self.authority, AUTHORITY), (self.client, CLIENT)):
            new = directory / f"new-{name}"
            new.write_bytes(Path(source).read_bytes())
            new.replace(directory / name)


class Backend:
    """One process that plays a script on a port."""

    def __init__(
        self, sink: Sink, port: int, journal: Path, life: Life, certificate: str, clients: str
    ) -> None:
        options = {
            "protocol": sink.protocol,
            "port": port,
            "journal": str(journal),
            "certificate": certificate,
            "clients": clients,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.backend", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(PYTHONPATH=str(ROOT)),
        )
        self.tell({"play": as_json(life.steps)})

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command and wait until it was carried out."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            message = f"the backend ended ({self.process.wait()}) instead of obeying {command}"
            raise RuntimeError(message)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Lives:
    """Runs a row's backends on another thread, from the first to the last."""

    def __init__(
        self,
        row: Row,
        sink: Sink,
        port: int,
        journal: Path,
        certificates: Mapping[bool, Certificates],
    ) -> None:
        self._row = row
        self._sink = sink
        self._port = port
        self._journal = journal
        self._certificates = certificates
        self._thread = threading.Thread(target=self._run)
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self.ready = threading.Event()  # the first backend runs
        self.logging = threading.Event()  # the application has begun
        self.ended = [threading.Event() for _ in row.runs]

    def start(self) -> None:
        self._thread.start()
        self.ready.wait()

    def stop(self) -> None:
        self._stop.set()
        for event in (self.logging, *self.ended):
            event.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for life in self._row.lives:
                self._live(life)
                if self._stop.is_set():
                    break
        except BaseException as error:  # raised again when the row's result is read
            self.error = error
        finally:
            self.ready.set()

    def _live(self, life: Life) -> None:
        issued = None if life.trusted is None else self._certificates[life.trusted]
        certificate = issued.server if issued else ""
        clients = issued.authority if issued and self._row.mutual else ""
        backend = Backend(self._sink, self._port, self._journal, life, certificate, clients)
        try:
            if life.after_run is not None:
                self.ended[life.after_run].wait()
            if life.after:
                self.ready.set()
                self.logging.wait()
                self._stop.wait(life.after)
            backend.tell({"open": True})
            self.ready.set()
            if life.lasts or life.renews is not None:
                self.logging.wait()
            if issued and life.renews is not None:
                self._stop.wait(life.renews)
                issued.put(self._journal.parent)
            until = time.monotonic() + life.lasts if life.lasts else float("inf")
            while not self._stop.is_set() and time.monotonic() < until:
                try:
                    backend.process.wait(0.05)
                    break  # its script has killed it
                except subprocess.TimeoutExpired:
                    continue
        finally:
            backend.end()


@dataclass
class Ended:
    """How one process of the application ended, and its reports.

    Attributes:
        report: its last report; if it was killed, its last ledger.
        exit: the seconds from its last log call to its end; None if it was killed.
        code: its exit code; the negative number of the signal that ended it.
        stderr: everything that it wrote to standard error.
    """

    report: dict[str, Any] = field(default_factory=dict)
    exit: float | None = None
    code: int = 0
    stderr: str = ""


def run_application(
    run: Run,
    options: dict[str, Any],
    directory: Path,
    logging: threading.Event,
    *,
    unread: bool = False,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run one process of the application, kill it if the row says so, and wait for its end.

    Args:
        run: the run to play.
        options: the options that the process gets, which include the run's.
        directory: the directory of the process and of its standard error.
        logging: an event that is set when the process has begun to log.
        unread: whether its standard error is a full pipe that nobody reads.
        env: the variables of the process in addition to those of this process.
    """
    ended = Ended()
    logged = time.monotonic()  # a default, because the process may end before its report
    stderr = directory / f"stderr-{options['first']}"
    command = [sys.executable, str(ROOT / "tests/faults/application.py"), json.dumps(options)]
    with (
        stderr.open("wb") as file,
        full_pipe() if unread else contextlib.nullcontext(file.fileno()) as descriptor,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=descriptor,
            text=True,
            cwd=directory,
            env=clean_environment(**(env or {})),
        ) as process,
        _killed_after(process, run.deadline + HANGS),
    ):
        assert process.stdout
        is_told = False  # whether the suite has told the process to end
        for line in process.stdout:
            told = json.loads(line)
            event = told.pop("event")
            if event == "logging":
                logging.set()
            elif event == "logged":
                logged = told["at"]
            else:
                ended.report = told
                if event == "ledger" and not is_told and _is_time_to_end(run, told):
                    is_told = True
                    process.send_signal(SIGNALS[run.end])
        ended.code = process.wait()
        if not run.is_killed:
            ended.exit = time.monotonic() - logged
    ended.stderr = stderr.read_text(encoding="utf-8", errors="replace")
    return ended


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """Yield the write end of a full pipe that nobody reads."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        process.kill()  # no process outlives the row, even after an error


def _is_time_to_end(run: Run, ledger: Mapping[str, Any]) -> bool:
    """Whether a process has reached the point at which the suite ends it."""
    accepted: int = ledger["accepted"] - ledger["adopted"]
    if run.end == "killed logging":
        return accepted >= run.records // 2
    if run.end == "terminated":
        return accepted >= run.records
    return accepted >= run.records and not ledger["pending"]
