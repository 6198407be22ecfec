"""The rows: which fault is played against which sinks, and where the records must end.

A row is data; ``suite.py`` plays it.  The times are chosen so that the fault is
active while the application logs, and that the whole suite takes a few minutes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tests.faults.script import ALWAYS, DATE, Fault, Step

#: Places where records may end; ``lost`` records are counted as dropped by the application.
Place = Literal["arrived", "rejected", "lost", "quarantined", "spooled"]

SpoolMode = Literal["overflow", "always"]

#: The way that a process of the application ends; :class:`Run` describes it.
End = Literal["flush", "shutdown", "exit", "drained", "terminated", "killed", "killed logging"]

#: The code that hangs: a processor or the sink's encoder after some records, or ``close()``.
Hang = Literal["processor", "encode", "close"]
#: The credentials, which must not appear anywhere, although the proxy echoes them.
PROXY_PASSWORD: Final = "s3cret-of-the-proxy"
PROXY_CREDENTIALS: Final = base64.b64encode(f"user:{PROXY_PASSWORD}".encode()).decode()
#: The damage that another program does to the files of the spool.
Tampering = Literal[
    "removed",  # deletes all files
    "truncated",  # cuts every segment to nothing
    "cursor removed",
    "lock removed",  # deletes the lock, and starts a second process while the first one lives
    "made sparse",  # every segment ends in a hole of 10 GiB
]

TEN_YEARS: Final = 10 * 365 * 86_400


@dataclass(frozen=True)
class Sink:
    """A remote sink: how the application makes it, and the protocol of its backend.

    Attributes:
        name: the name in the table and on the command line.
        protocol: the backend's protocol, ``"http"`` or ``"grpc"``.
        options: the options of the sink's constructor.
    """

    name: str
    protocol: str
    options: dict[str, Any]


SINKS: Final = {
    sink.name: sink
    for sink in (
        Sink("otlp-http", "http", {"kind": "otlp", "protocol": "http/protobuf"}),
        Sink("otlp-json", "http", {"kind": "otlp", "protocol": "http/json"}),
        Sink("otlp-grpc", "grpc", {"kind": "otlp", "protocol": "grpc"}),
        Sink("loki-json", "http", {"kind": "loki", "format": "json"}),
        Sink("loki-protobuf", "http", {"kind": "loki", "format": "protobuf"}),
        Sink("spans-http", "http", {"kind": "spans", "protocol": "http/protobuf"}),
        Sink("spans-json", "http", {"kind": "spans", "protocol": "http/json"}),
        Sink("spans-grpc", "grpc", {"kind": "spans", "protocol": "grpc"}),
    )
}
REMOTE: Final = ("otlp-http", "otlp-grpc", "loki-json")
HTTP: Final = ("otlp-http", "loki-json")
GRPC_TOO: Final = ("otlp-http", "otlp-grpc")
OTLP: Final = ("otlp-http", "otlp-json", "otlp-grpc")


@dataclass(frozen=True)
class Life:
    """One life of a backend, from opening its port until its script or the suite kills it.

    Attributes:
        steps: the script.
        after: the seconds for which its port stays closed first.
        after_run: the index of the application's process that must end before the port opens.
        trusted: whether its certificate is the one that the application trusts
            at first; None without TLS.
        renews: the seconds of logging after which the application's files are replaced
            by those that fit this life's certificate.
        lasts: the seconds of logging after which the suite kills it; None lets it live.
    """

    steps: tuple[Step, ...] = ()
    after: float = 0.0
    after_run: int | None = None
    trusted: bool | None = None
    renews: float | None = None
    lasts: float | None = None


@dataclass(frozen=True)
class Run:
    """One process of the application.

    Attributes:
        records: the number of records that it logs.
        end: how it ends: ``flush`` flushes, then shuts down;
            ``shutdown`` only shuts down; ``exit`` lets the interpreter end;
            ``drained`` waits, without a flush, until memory and disk hold
            no records, then shuts down; ``terminated`` gets SIGTERM;
            ``killed`` is killed when no record is left in its memory;
            ``killed logging`` is killed while it logs.
        deadline: the seconds that it may take to end.
        neighbour: the position of a second sink, whose destination does not
            listen and which must not get any record; "" for no second sink.
        tampering: the damage to the spool's files while it logs; None for no damage.
        tampered_at: the number of records before the damage; 0 means before fapilog starts.
    """

    records: int = 3000
    end: End = "flush"
    deadline: float = 20.0
    neighbour: Literal["", "first", "second"] = ""
    tampering: Tampering | None = None
    tampered_at: int = 0

    @property
    def is_killed(self) -> bool:
        """Whether the suite kills the process."""
        return self.end.startswith("killed")

    @property
    def reports(self) -> bool:
        """Whether the process lives long enough to report its last ledger."""
        return not self.is_killed and self.end != "terminated"


@dataclass(frozen=True)
class Row:
    """A fault that is played against each of ``sinks``.

    Attributes:
        name: the name in the table and on the command line.
        sinks: keys of :data:`SINKS`.
        lives: the lives of the backend in order; without any, its port stays closed.
        runs: the runs of the application in order.
        bad_every: the distance between two records that the backend treats as bad.
        good, bad: the places where ordinary and bad records must end.
        spool: the mode of the spool; None without a spool.
        spool_options: further options of the spool.
        disk: the bytes of the file system that holds the spool; None is the usual one.
        padding: the number of extra characters in each record.
        bad_padding: the number of extra characters in a bad record.
        copies: the most copies that the backend may hold; None for any number.
        hangs: the application's code that never returns, a :data:`Hang`.
        pause: the seconds from every 20 calls to the next; a late application catches up.
        settings: further options of the application.
        sink: further options of the sink.
        unread: whether standard error is a full pipe that nobody reads.
        mutual: whether the backend requires a client certificate of its own authority.
        proxied: whether the backend is a proxy that the application has to use, with
            the credentials in its URL.
    """

    name: str
    sinks: tuple[str, ...] = REMOTE
    lives: tuple[Life, ...] = (Life(),)
    runs: tuple[Run, ...] = (Run(),)
    bad_every: int = 0
    good: tuple[Place, ...] = ("arrived",)
    bad: tuple[Place, ...] = ()
    spool: SpoolMode | None = None
    spool_options: dict[str, Any] = field(default_factory=dict)
    disk: int | None = None
    padding: int = 0
    bad_padding: int | None = None
    copies: int | None = None
    hangs: Hang | None = None
    pause: float = 0.008
    settings: dict[str, Any] = field(default_factory=dict)
    sink: dict[str, Any] = field(default_factory=dict)
    unread: bool = False
    mutual: bool = False
    proxied: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether the backend uses TLS."""
        return any(life.trusted is not None for life in self.lives)

    def is_bad(self, n: int) -> bool:
        """Whether the backend treats record ``n`` as bad."""
        return bool(self.bad_every) and n % self.bad_every == self.bad_every - 1


def once(fault: Fault, times: int = 2, **options: Any) -> tuple[Life, ...]:
    """A backend that plays ``fault`` after its first request, then accepts everything."""
    return (Life((Step("none"), Step(fault, times, **options))),)


def always(fault: Fault, **options: Any) -> tuple[Life, ...]:
    return (Life((Step(fault, ALWAYS, **options),)),)


def window(status: int) -> tuple[Life, ...]:
    """A backend that answers with ``status`` for a while."""
    return once("status", seconds=1.5, status=status)


#: A backend that stops while the application logs, and does not come back.
GONE: Final = (Life((Step("none", seconds=0.6), Step("die"))),)
GIVES_UP: Final = (Run(end="shutdown", deadline=2.0),)
EXITS: Final = (Run(end="exit", deadline=2.0),)
QUARANTINES: Final[SpoolMode] = "overflow"
_MORE_THAN_MEMORY: Final = "spool removed while down, more than memory keeps"
_SPANS_OVER_GRPC: Final = frozenset(
    {
        "down at start",
        "killed after reading, restarted",
        "503",
        "400 for bad records, spool",
        "partial success",
        "exit while down, spool",
        "SIGTERM while down, spool",
        "SIGKILL, next start delivers",
    }
)
#: For answers that take their time on a busy machine: a late answer does not
#: count, and the batch would be sent again.
PATIENT: Final = {"timeout": 10.0}


def rows() -> list[Row]:
    # Imported here, because that module uses names of this one.
    from tests.faults.delivery_rows import delivery_rows

    found = [
        *_healthy(),
        *_connections(),
        *_diagnostics(),
        *_answers(),
        *_refusals(),
        *_ends(),
        *_spools(),
        *delivery_rows(),
    ]
    return [replace(row, sinks=(*row.sinks, *_sinks_of_spans(row))) for row in found]


def _sinks_of_spans(row: Row) -> Iterator[str]:
    """Yield the sinks of spans for a row that records have over OTLP, if spans can play it.

    The sink of spans has one thread and no neighbour, and its code does not hang.  The SDK's own
    queue decides how many spans are on disk at a moment, so a row that needs a certain number
    there is left out.  The HTTP and gRPC clients are those of records, so over gRPC only a few
    rows are played.
    """
    if row.hangs or "concurrency" in row.sink or any(run.neighbour for run in row.runs):
        return
    if row.name == _MORE_THAN_MEMORY:
        return
    if "otlp-http" in row.sinks and "spans-http" not in row.sinks:
        yield "spans-http"
    if row.name in _SPANS_OVER_GRPC:
        yield "spans-grpc"
    if row.name in {"400 for bad records", "partial success"}:
        yield "spans-json"


def _healthy() -> Iterator[Row]:
    yield Row("healthy", tuple(SINKS))
    yield Row("healthy, four senders", HTTP, sink={"concurrency": 4})


def _connections() -> Iterator[Row]:
    yield Row("down at start", lives=(Life(after=2.5),))
    yield Row(
        "killed after reading, restarted",
        lives=(Life((Step("none", 2), Step("die"))), Life(after=1.0)),
    )
    yield Row(
        "killed after reading, four senders",
        GRPC_TOO,
        lives=(Life((Step("none", 2), Step("die"))), Life(after=1.0)),
        sink={"concurrency": 4},
    )
    yield Row("black hole", lives=once("silence"))
    yield Row("slow answer", lives=once("dribble"))
    yield Row("reset while writing", lives=once("reset writing", 3))
    yield Row("reset after reading", lives=once("reset reading", 3))
    yield Row(
        "wrong certificate, then the right one",
        lives=(Life(trusted=False, lasts=2.0), Life(trusted=True, after=0.3)),
    )
    yield Row(
        "client certificate renewed",
        lives=(Life(trusted=True, lasts=0.6), Life(trusted=False, renews=1.0)),
        mutual=True,
    )


def _diagnostics() -> Iterator[Row]:
    """Announcements that nobody reads, while there are many of them."""
    yield Row("stderr nobody reads", unread=True)
    yield Row("stderr nobody reads, down at start", lives=(Life(after=2.5),), unread=True)
    yield Row("stderr nobody reads, 401 for a while", lives=window(401), unread=True)
    yield Row(
        "stderr nobody reads, exit while down",
        lives=GONE,
        runs=EXITS,
        good=("arrived", "lost"),
        unread=True,
    )
    yield Row(
        "stderr nobody reads, SIGTERM while down, spool",
        lives=GONE,
        runs=(Run(end="terminated", deadline=2.0),),
        good=("arrived", "spooled"),
        spool="overflow",
        unread=True,
    )


def _answers() -> Iterator[Row]:
    yield Row("429, Retry-After 1", lives=once("status", status=429, retry_after="1"))
    yield Row("429, Retry-After date", HTTP, lives=once("status", 1, status=429, retry_after=DATE))
    yield Row(
        "429, Retry-After ten years",
        lives=once("status", 1, status=429, retry_after=str(TEN_YEARS)),
    )
    yield Row("503", lives=once("status", 4, status=503))
    yield Row("500", ("loki-json",), lives=once("status", 4, status=500))
    yield Row("401 for a while", lives=window(401))
    yield Row("403 for a while", lives=window(403))
    yield Row("proxy answers 407 for a while", HTTP, lives=window(407), proxied=True)
    yield Row("gzip bomb", HTTP, lives=once("bomb"))
    yield Row(
        "gzip bomb",
        ("otlp-grpc",),
        lives=once("bomb"),
        good=("arrived", "rejected"),
        sink=PATIENT,
    )
    yield Row("huge answer", ("loki-json",), lives=once("huge"))
    yield Row(
        "huge answer", GRPC_TOO, lives=once("huge"), good=("arrived", "rejected"), sink=PATIENT
    )
    yield Row(
        "huge answer, spool",
        GRPC_TOO,
        lives=once("huge"),
        good=("arrived", "quarantined"),
        spool=QUARANTINES,
        sink=PATIENT,
    )
    yield Row("garbage answer", lives=once("garbage"))
    yield Row("noise for an answer", HTTP, lives=once("noise", 3))
    yield Row(
        "noise for an answer",
        ("otlp-grpc",),
        lives=once("noise", 3),
        good=("arrived", "rejected"),
    )


def _refusals() -> Iterator[Row]:
    yield Row(
        "400 for bad records",
        ("otlp-http", "otlp-json", "otlp-grpc", "loki-json", "loki-protobuf"),
        lives=always("bad"),
        bad_every=400,
        bad=("rejected",),
    )
    yield Row(
        "400 for bad records, spool",
        lives=always("bad"),
        bad_every=400,
        bad=("quarantined",),
        spool=QUARANTINES,
    )
    yield Row(
        "partial success",
        OTLP,
        lives=always("partial"),
        bad_every=50,
        bad=("rejected",),
    )
    yield Row("413 above 16 KiB", lives=always("too large", size=16 << 10))
    yield Row(
        "404",
        lives=always("status", status=404),
        good=("rejected",),
    )
    yield Row(
        "404, spool",
        lives=always("status", status=404),
        good=("quarantined",),
        spool=QUARANTINES,
    )


def _ends() -> Iterator[Row]:
    yield Row(
        "shutdown while down",
        lives=GONE,
        runs=GIVES_UP,
        good=("arrived", "lost"),
    )
    yield Row("exit while down", lives=GONE, runs=EXITS, good=("arrived", "lost"))
    yield Row(
        "exit while down, spool",
        lives=GONE,
        runs=EXITS,
        good=("arrived", "spooled"),
        spool="overflow",
    )
    yield Row(
        "exit in a black hole",
        lives=always("silence"),
        runs=EXITS,
        good=("lost",),
    )
    yield Row(
        "exit in a black hole, spool",
        lives=always("silence"),
        runs=EXITS,
        good=("spooled",),
        spool="overflow",
    )
    yield Row(
        "exit in a black hole, four senders, spool",
        HTTP,
        lives=always("silence"),
        runs=EXITS,
        good=("spooled",),
        spool="overflow",
        sink={"concurrency": 4},
    )
    modes: tuple[SpoolMode, ...] = ("overflow", "always")
    for mode in modes:
        yield Row(
            f"exit while down and bisecting, spool {mode}",
            GRPC_TOO,
            lives=(Life((Step("bad", 17), Step("die"))),),
            runs=EXITS,
            bad_every=100,
            good=("arrived", "spooled"),
            bad=("quarantined", "spooled"),
            spool=mode,
        )
    yield Row(
        "SIGTERM while down, spool",
        lives=GONE,
        runs=(Run(end="terminated", deadline=2.0),),
        good=("arrived", "spooled"),
        spool="overflow",
    )
    yield Row(
        "exit while down, next start delivers",
        lives=(*GONE, Life(after_run=0)),
        runs=(*EXITS, Run(records=500, end="drained")),
        spool="overflow",
    )
    yield Row(
        "SIGKILL, next start delivers",
        lives=(*GONE, Life(after_run=0)),
        runs=(Run(end="killed"), Run(records=500, end="drained")),
        spool="always",
    )
    yield Row(
        "SIGKILL while logging, next start delivers",
        lives=(*GONE, Life(after_run=0)),
        runs=(Run(end="killed logging"), Run(records=500, end="drained")),
        spool="always",
    )
    yield Row(
        "SIGKILL while adopting, next start delivers",
        lives=(*GONE, Life(once("reset reading", 4)[0].steps, after_run=0)),
        runs=(Run(end="killed"), Run(end="killed logging"), Run(records=500, end="drained")),
        spool="always",
    )
    yield Row(
        "exit while down, twice, next start delivers",
        lives=(*GONE, Life(after_run=1)),
        runs=(*EXITS, Run(records=500, end="exit", deadline=2.0), Run(records=500, end="drained")),
        spool="overflow",
    )
    yield Row(
        "backlog too small",
        lives=(),
        runs=GIVES_UP,
        good=("lost",),
        settings={"backlog_bytes": 65_536},
    )
    yield Row(
        "backlog too small, spool",
        lives=(Life(after=2.5),),
        runs=(Run(end="drained"),),
        spool="overflow",
        settings={"backlog_bytes": 65_536},
    )
    yield Row(
        "spool at its cap, exit while down",
        lives=(),
        runs=EXITS,
        good=("spooled", "lost"),
        spool="always",
        spool_options={"max_bytes": 1 << 20, "segment_bytes": 1 << 16},
        padding=500,
    )
    yield Row(
        "disk full, backend up, few records",
        # Three attempts, because the fault is a race.
        runs=(Run(records=40, end="drained", deadline=4.0),) * 3,
        spool="always",
        spool_options={"min_free": 1 << 50},
        pause=1.2,
    )
    yield Row(
        "disk full, down at start",
        lives=(Life(after=2.5),),
        runs=(Run(end="drained"),),
        spool="always",
        disk=128 << 10,
    )


def _spools() -> Iterator[Row]:
    """A spool that belongs to another sink, is taken away, or is hostile."""
    heir = Run(records=500, end="drained")
    back = (*GONE, Life(after_run=0))
    yield Row(
        "two sinks swap places, next start delivers",
        lives=back,
        runs=(
            Run(end="exit", deadline=2.0, neighbour="second"),
            Run(records=500, end="drained", neighbour="first"),
        ),
        spool="overflow",
    )
    tamperings: tuple[Tampering, ...] = ("removed", "truncated", "cursor removed")
    for tampering in tamperings:
        yield Row(
            f"spool {tampering} while down, next start delivers",
            lives=back,
            runs=(Run(end="exit", deadline=2.0, tampering=tampering, tampered_at=2500), heir),
            spool="overflow",
        )
    yield Row(
        _MORE_THAN_MEMORY,
        HTTP,
        lives=back,
        runs=(Run(end="exit", deadline=4.0, tampering="removed", tampered_at=2900), heir),
        good=("arrived", "lost"),
        spool="overflow",
        spool_options={"segment_bytes": 1 << 16},
        padding=8000,
    )
    yield Row(
        "spool lock removed, second process starts",
        lives=(*GONE, Life(after=0.5)),
        runs=(Run(end="drained", tampering="lock removed", tampered_at=2500),),
        spool="always",
        spool_options={"segment_bytes": 1 << 16},
        padding=8000,  # more than a process can read from memory
    )
    yield Row(
        "huge sparse segments at start",
        lives=back,
        runs=(*EXITS, Run(records=500, end="drained", tampering="made sparse")),
        spool="overflow",
    )
