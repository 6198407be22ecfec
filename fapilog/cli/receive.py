"""Implements ``fapilog receive``, an OTLP receiver that draws traces on the terminal."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fapilog.cli.interrupt import quiet_interrupt
from fapilog.cli.terminal import CYAN, Terminal, Text, cut
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog.cli.receiver import ReceivedLog, ReceivedSpan, Receiver

#: A trace that has a root span is drawn after this many seconds without new data.
_WHOLE: Final = 1.0
#: A trace without a root span is drawn after this many seconds without new data.  By default,
#: the OpenTelemetry SDK exports spans every 5 seconds, so the root span may arrive late.
_PATIENCE: Final = 10.0
#: The interval, in seconds, between two checks for new data.
_TICK: Final = 0.2
#: The maximum number of buffered records and spans.  If there are more, the oldest traces are
#: drawn, even if they are not complete.
_KEEP: Final = 20_000


def receive(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="TCP port for OTLP/HTTP; 0 selects a free port.")
    ] = 4318,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="TCP port for OTLP/gRPC; 0 selects a free port.")
    ] = 4317,
    traces: Annotated[
        int, typer.Option(min=0, help="End after this many traces; 0 runs until Ctrl-C.")
    ] = 0,
) -> None:
    """Show logs and traces as they arrive over OTLP.

    Listens on this machine only.  Draws a trace one second after its latest data,
    or after ten seconds if its root span is missing; Ctrl-C draws the remaining traces.
    """
    terminal = Terminal()
    try:
        with quiet_interrupt():
            from fapilog.cli.receiver import Receiver  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        typer.echo(f"fapilog: receive needs: pip install 'fapilog[demo]' ({error})", err=True)
        raise typer.Exit(1) from None
    receiver = Receiver(http_port=port, grpc_port=grpc_port, keep=_KEEP)
    try:
        receiver.start()
    except (OSError, RuntimeError) as error:
        ports = f"--port {port} or --grpc-port {grpc_port}"
        typer.echo(f"fapilog: cannot listen on {ports}: choose another, or 0 ({error})", err=True)
        raise typer.Exit(1) from None
    try:
        show(terminal, receiver, traces)
    finally:
        receiver.stop()


def show(terminal: Terminal, receiver: Receiver, most: int) -> None:
    """Draw traces until Ctrl-C, or until ``most`` or more traces have been drawn.  Blocks.

    If ``most`` is 0, only Ctrl-C ends this function.  After Ctrl-C, it draws all buffered traces.
    """
    waiting = Waiting()
    drawn = 0
    try:
        terminal.heading("fapilog receive", "Ctrl-C draws the waiting traces and ends the receiver")
        ways = [("OTLP/HTTP", receiver.http_endpoint), ("OTLP/gRPC", receiver.grpc_endpoint)]
        terminal.table(
            [[way, Text(f"OTEL_EXPORTER_OTLP_ENDPOINT={url}", CYAN)] for way, url in ways if url]
        )
        while not most or drawn < most:
            time.sleep(_TICK)
            drawn += _draw(terminal, receiver, waiting, monotonic())
    except KeyboardInterrupt:
        terminal.line()
        _draw(terminal, receiver, waiting, math.inf)


def _draw(terminal: Terminal, receiver: Receiver, waiting: Waiting, now: float) -> int:
    """Draw new records that belong to no trace, and the traces that are complete at ``now``.

    If ``now`` is infinite, draw all buffered traces.  Return the number of drawn traces.
    """
    show_untraced(terminal, waiting.add(*receiver.take(), now=monotonic()))
    traces = waiting.whole(now)
    for trace in traces:
        trace.draw(terminal)
    return len(traces)


@dataclass
class Trace:
    """The records and spans of one trace, and ``news``, the time when data last arrived."""

    trace_id: str
    logs: list[ReceivedLog] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)
    news: float = 0.0

    def is_whole(self, now: float) -> bool:
        """Return whether the trace is probably complete: no data has arrived for some time."""
        has_root = any(not span.span.parent_span_id for span in self.spans)
        return now - self.news >= (_WHOLE if has_root else _PATIENCE)

    def draw(self, terminal: Terminal) -> None:
        """Draw the trace's timeline under a heading."""
        from fapilog.cli.timeline import Timeline  # noqa: PLC0415 - an extra

        terminal.heading("trace", cut(self.trace_id, terminal.width // 2))
        Timeline(terminal, self.logs, self.spans).draw()


class Waiting:
    """A buffer of the traces that are not drawn yet, oldest first."""

    def __init__(self) -> None:
        self._traces: dict[str, Trace] = {}

    def add(
        self, logs: Iterable[ReceivedLog], spans: Iterable[ReceivedSpan], now: float
    ) -> list[ReceivedLog]:
        """Add records and spans, which arrived at ``now``, to their traces.

        Return the records that do not belong to a trace.
        """
        untraced: list[ReceivedLog] = []
        for log in logs:
            if log.trace_id:
                self._trace(log.trace_id, now).logs.append(log)
            else:
                untraced.append(log)
        for span in spans:
            self._trace(span.trace_id, now).spans.append(span)
        return untraced

    def _trace(self, trace_id: str, now: float) -> Trace:
        trace = self._traces.setdefault(trace_id, Trace(trace_id))
        trace.news = now
        return trace

    def whole(self, now: float) -> list[Trace]:
        """Remove and return the traces that must be drawn at ``now``.

        These are the complete traces and, if too much data is buffered, the oldest traces.
        """
        size = sum(len(trace.logs) + len(trace.spans) for trace in self._traces.values())
        taken: list[Trace] = []
        for trace_id, trace in list(self._traces.items()):
            if size > _KEEP or trace.is_whole(now):
                taken.append(self._traces.pop(trace_id))
                size -= len(trace.logs) + len(trace.spans)
        return taken


def show_untraced(terminal: Terminal, logs: Iterable[ReceivedLog]) -> None:
    """Write the records that belong to no trace, each with its time of day, oldest first.

    OTLP groups the records of a request by resource and logger, not by time.
    """
    from fapilog.cli.timeline import draw_log  # noqa: PLC0415 - an extra

    for log in sorted(logs, key=_time_of):
        when = datetime.fromtimestamp(_time_of(log) / 1e9).astimezone()
        draw_log(terminal, log, f"{when:%H:%M:%S}  ")


def _time_of(log: ReceivedLog) -> int:
    """Return the record's time, or the time when it was observed, in nanoseconds."""
    return int(log.record.time_unix_nano or log.record.observed_time_unix_nano)
