"""Encodes a record as one line of JSON, for the console and for files.

fapilog's worker thread runs this code for every record.  The lines are safe to show: no value in
a record can end a line early, reorder its text on screen or control a terminal.
"""

from __future__ import annotations

import base64
import functools
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import orjson

from fapilog.values import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fapilog.record import LogRecord, Resource, Scope

LineT = TypeVar("LineT")

_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; rfc3339() writes the "Z"
# Lines omit the resource attributes with these prefixes, except the attributes in ``_KEPT``.
# The omitted attributes describe the Python runtime and the system, not the origin of the
# record, and would make up half of every line.
_LEFT_OUT: Final = ("telemetry.", "process.", "os.")
_KEPT: Final = frozenset({"process.pid"})
_DEL: Final = 0x7F  # an int, because "int in bytes" is four times as fast as "bytes in bytes"

# The characters that JSON does not escape, but that a terminal or an editor may interpret as
# commands: DEL, the C1 controls (U+009B may start a terminal command), the Unicode line
# separators, and the bidirectional characters, which reorder text on screen.
_COMMANDS: Final = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])"
)
#: Matches in a str the characters that ``_COMMANDS`` matches in UTF-8, and also the C0 controls
#: and the lone surrogates.
COMMANDS_IN_TEXT: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]+")


def json_line(record: LogRecord) -> bytes:
    r"""Return ``record`` as one JSON object in UTF-8, ended by a newline.

    The field names follow the OpenTelemetry log data model
    (https://opentelemetry.io/docs/specs/otel/logs/data-model/): ``timestamp`` and
    ``observed_timestamp`` (RFC 3339, UTC, nanoseconds), ``severity_text``,
    ``severity_number``, ``body``, ``scope``, ``attributes`` and ``resource``.  The fields
    ``event_name``, ``trace_id``, ``span_id``, ``trace_flags`` and
    ``dropped_attributes_count`` appear only if the record has them.  If a record has no
    timestamp, ``timestamp`` is its observed time, as the data model advises.  Bytes become
    base64, and other values that JSON cannot represent become text.  Control characters,
    line separators and bidirectional characters become ``\u`` escapes.  The line omits the
    resource attributes that only describe the runtime (``telemetry.*``, ``os.*``, and
    ``process.*`` except the pid).

    Never blocks or raises.  Thread-safe.
    """
    try:
        line = _line(record, orjson.dumps)
    except TypeError:  # orjson.JSONEncodeError is a TypeError
        line = _line(record, _dumps_snapshot)
    return without_commands(line)


def without_commands(line: bytes) -> bytes:
    r"""Return a line of JSON with ``\u`` escapes for characters that could control a terminal."""
    if line.isascii() and _DEL not in line:
        return line
    return _COMMANDS.sub(_json_escape, line)


def _line(record: LogRecord, dumps: Callable[[Any, Callable[[Any], Any]], bytes]) -> bytes:
    # Consecutive records often have the same second, severity, scope and resource, so the JSON
    # of these values is cached.
    observed = record.observed_timestamp
    seconds, nanoseconds = divmod(record.timestamp or observed, _SECOND)
    return b"".join(
        (
            b'{"timestamp":"',
            _second(seconds),
            b"%09d" % nanoseconds,
            _observed_and_severity(observed, record.severity_number, record.severity_text),
            dumps(record.body, base64_text),
            b',"attributes":',
            dumps(record.attributes, base64_text),
            _rest(
                record.event_name,
                record.dropped_attributes_count,
                record.trace_id,
                record.span_id,
                record.trace_flags,
                record.scope,
                record.resource,
            ),
        )
    )


def _dumps_snapshot(value: object, default: Callable[[Any], Any]) -> bytes:
    """Convert a value that ``orjson.dumps`` refused to plain types, and return its JSON."""
    return orjson.dumps(snapshot(value), default)


def json_text(value: object) -> str:
    """Return ``value`` as compact JSON text.  Never raises.

    The text may contain characters that control a terminal (see :data:`COMMANDS_IN_TEXT`).
    """
    try:
        return orjson.dumps(value, base64_text).decode()
    except TypeError:
        return orjson.dumps(snapshot(value), base64_text).decode()


def ascii_line(line: bytes) -> bytes:
    r"""Return a line of JSON with ``\u`` escapes for all characters outside ASCII."""
    return line if line.isascii() else _NOT_ASCII.sub(_json_escape, line)


def rfc3339(nanoseconds: int) -> str:
    """Return a time since the Unix epoch as ``2026-11-23T10:15:00.123456789Z``.

    A negative time becomes 0, because OTLP cannot represent a time before the epoch.
    """
    seconds, rest = divmod(max(nanoseconds, 0), _SECOND)
    return f"{_second(seconds).decode()}{rest:09d}Z"


@functools.lru_cache(maxsize=64)
def shown_resource(resource: Resource) -> Mapping[str, Any]:
    """Return the attributes of ``resource`` that a JSON line contains.

    The result is cached, so callers must not change it.
    """
    return {
        name: value
        for name, value in resource.attributes.items()
        if not name.startswith(_LEFT_OUT) or name in _KEPT
    }


def split_written(lines: Sequence[bytes], written: int) -> tuple[int, bytes]:
    """Return the number of completely written lines, and the unwritten bytes of the next line.

    ``written`` is the number of bytes of ``lines`` that were written.  The second result is
    ``b""`` if no line was partly written.
    """
    for whole, line in enumerate(lines):
        if written < len(line):
            return whole, line[written:] if written else b""
        written -= len(line)
    return len(lines), b""


def portions(lines: Sequence[bytes], limit: int | None) -> Iterator[bytes]:
    """Join ``lines`` into byte strings of up to ``limit`` bytes, each to be written in one call.

    A line that is longer than ``limit`` is not split.  If ``limit`` is None, all lines are
    joined into one byte string.
    """
    if limit is None:
        yield b"".join(lines)
        return
    start = size = 0
    for end, line in enumerate(lines):
        if size + len(line) > limit:
            yield b"".join(lines[start:end])
            start, size = end, 0
        size += len(line)
    yield b"".join(lines[start:])


class Progress(Generic[LineT]):
    """Counts the written items of a failed batch, so that a retry does not write them again.

    The object recognises a retried batch by the identity of the batch's first item.
    """

    def __init__(self) -> None:
        self._first: LineT | None = None
        self._done = 0

    def rest(self, batch: Sequence[LineT]) -> Sequence[LineT]:
        """Return the items of ``batch`` that have not been written yet."""
        return batch[self._done :] if batch[0] is self._first else batch

    def advance(self, batch: Sequence[LineT], done: int) -> None:
        """Remember that the first ``done`` items of the result of :meth:`rest` are written."""
        before = self._done if batch[0] is self._first else 0
        self._first, self._done = batch[0], before + done

    def clear(self) -> None:
        """Forget the batch, which will not be retried."""
        self._first, self._done = None, 0


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    """Return a Unix time as ``2026-11-23T10:15:00.``; the caller appends the fraction."""
    try:
        moment = (_EPOCH + timedelta(seconds=max(seconds, 0))).isoformat()
    except OverflowError:  # the time is after the year 9999
        moment = str(seconds)
    return f"{moment}.".encode()


@functools.lru_cache(maxsize=64)
def _observed_and_severity(observed: int, number: int, text: str) -> bytes:
    start = f'Z","observed_timestamp":"{rfc3339(observed)}","severity_text":'
    return f'{start}{json_text(text)},"severity_number":{number},"body":'.encode()


@functools.lru_cache(maxsize=1024)
def _rest(  # noqa: PLR0917 - positional arguments are faster
    event_name: str,
    dropped: int,
    trace_id: str,
    span_id: str,
    flags: int,
    scope: Scope,
    resource: Resource,
) -> bytes:
    """Return the end of a JSON line: the text that follows the record's attributes.

    The scope and the resource can be keys of the cache, because they are immutable, few, and
    compared by identity.
    """
    named = {"name": scope.name}
    if scope.version:
        named["version"] = scope.version
    fields: dict[str, Any] = {}
    if event_name:
        fields["event_name"] = event_name
    if dropped:
        fields["dropped_attributes_count"] = dropped
    if trace_id:
        fields |= {"trace_id": trace_id, "span_id": span_id, "trace_flags": flags}
    fields |= {"scope": named, "resource": shown_resource(resource)}
    return b"," + json_text(fields)[1:].encode() + b"\n"


def base64_text(value: object) -> str:
    """Return bytes as base64, and raise TypeError for other values.

    This function is passed to ``orjson.dumps`` as the argument ``default``.
    """
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(type(value))


def _json_escape(match: re.Match[bytes]) -> bytes:
    units = match[0].decode("utf-8").encode("utf-16-be")
    return b"".join(b"\\u%02x%02x" % pair for pair in zip(units[::2], units[1::2], strict=True))
