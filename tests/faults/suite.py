"""Plays one row against one sink: processes, a port, a directory, and the balance at the end."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trustme

from tests.faults.balance import Result, balance
from tests.faults.disk import on_disk
from tests.faults.processes import (
    AUTHORITY,
    CLIENT,
    Certificates,
    Lives,
    reserve_port,
    run_application,
)
from tests.faults.rows import PROXY_PASSWORD, SINKS, Row, Run, Sink
from tests.faults.script import Books

#: Options with which a row shows its fault in seconds: small batches, short waits.
LIMITS: Final = {"count": 256, "delay": 0.2}
TIME_LIMIT: Final = 1.0
SETTINGS: Final = {"retry_initial": 0.2, "retry_maximum": 1.0}


class NotPossibleError(Exception):
    """Raised with the reason if the machine cannot play a row."""


def play(row: Row, sink_name: str) -> Result:
    """Play a row; blocks for some seconds.

    Raises:
        NotPossibleError: the machine does not allow what the row needs.
    """
    sink = SINKS[sink_name]
    with (
        tempfile.TemporaryDirectory(prefix="fapilog-faults-") as name,
        reserve_port() as port,
        _spool(row, Path(name)) as spool,
    ):
        directory = Path(name)
        journal = directory / "journal"
        number: int = port.getsockname()[1]
        certificates = _certificates(directory) if row.is_secure else {}
        lives = Lives(row, sink, number, journal, certificates)
        lives.start()
        try:
            first, runs = 0, []
            for run, over in zip(row.runs, lives.ended, strict=True):
                options = options_of(row, sink, run, number, directory, spool)
                options["first"] = first
                more: dict[str, Any] = {"env": proxy_of(row, number), "unread": row.unread}
                runs.append(run_application(run, options, directory, lives.logging, **more))
                over.set()
                first += run.records
        finally:
            lives.stop()
        if lives.error is not None:
            raise lives.error
        return balance(row, sink_name, runs, Books.read(journal), on_disk(spool))


def options_of(
    row: Row, sink: Sink, run: Run, port: int, directory: Path, spool: Path | None
) -> dict[str, Any]:
    """Return the options of a process of the application."""
    host = "collector.invalid" if row.proxied else "127.0.0.1"
    own: dict[str, Any] = {
        **sink.options,
        "url": f"{'https' if row.is_secure else 'http'}://{host}:{port}",
        "timeout": TIME_LIMIT,
        "limits": LIMITS,
        **row.sink,
    }
    if row.is_secure:
        own["certificate"] = str(directory / AUTHORITY)
    if row.mutual:
        own["client_certificate"] = own["client_key"] = str(directory / CLIENT)
    settings = {**SETTINGS, "shutdown_timeout": run.deadline, **row.settings}
    if spool is not None:
        group = {"directory": str(spool), "mode": row.spool, "min_free": 0}
        settings["spool"] = {**group, **row.spool_options}
    return {
        "sink": own,
        "neighbour": run.neighbour,
        "tampering": run.tampering,
        "tampered_at": run.tampered_at,
        "settings": settings,
        "records": run.records,
        "bad_every": row.bad_every,
        "padding": row.padding,
        "bad_padding": row.padding if row.bad_padding is None else row.bad_padding,
        "hangs": row.hangs,
        "pause": row.pause,
        "end": run.end,
        "deadline": run.deadline,
    }


def proxy_of(row: Row, port: int) -> dict[str, str]:
    """Return the variables that send the application's requests through the backend."""
    return {"http_proxy": f"http://user:{PROXY_PASSWORD}@127.0.0.1:{port}"} if row.proxied else {}


def _certificates(directory: Path) -> dict[bool, Certificates]:
    """Write the certificates of two authorities; the application gets those of the first."""
    issued = {}
    for trusted in (True, False):
        issuer = trustme.CA()
        own = directory / f"issued-{trusted}"
        own.mkdir()
        files = issued[trusted] = Certificates(
            *(str(own / name) for name in (AUTHORITY, "server.pem", CLIENT))
        )
        issuer.cert_pem.write_to_path(files.authority)
        issuer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(files.server)
        client = issuer.issue_cert("client.example")
        client.private_key_and_cert_chain_pem.write_to_path(files.client)
    issued[True].put(directory)
    return issued


@contextlib.contextmanager
def _spool(row: Row, directory: Path) -> Iterator[Path | None]:
    """Yield the spool's directory, on a separate small file system if the row needs one."""
    if row.spool is None:
        yield None
        return
    spool = directory / "spool"
    spool.mkdir(mode=0o700)
    if row.disk is None:
        yield spool
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={row.disk},mode=0700", "tmpfs", str(spool)]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    if mounted.returncode:
        message = f"a small file system cannot be mounted: {mounted.stderr.strip()}"
        raise NotPossibleError(message)
    try:
        yield spool
    finally:
        subprocess.run(["umount", str(spool)], check=True)
