"""Writes push requests to Loki in two formats: gzipped JSON, and protobuf with snappy.

Each entry is encoded once.  Building a request only joins the encoded entries of each stream.  If
Loki accepts no structured metadata, :class:`InLine` encodes the entries, in either format.
Sources: https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs and
https://github.com/grafana/loki/blob/main/pkg/push/push.proto
"""

from __future__ import annotations

import gzip
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from fapilog.errors import ConfigurationError
from fapilog.otlp.protobuf import (
    Memo,
    bytes_field,
    delimited,
    fields,
    int64_field,
    last,
    messages,
    varint,
)
from fapilog.sinks.http.options import GZIP_LEVEL
from fapilog.sinks.loki.metadata import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: An encoded record: the encoded labels of its stream, its time in nanoseconds since the Unix
#: epoch, and its encoded entry.
Item: TypeAlias = tuple[bytes, int, bytes]

#: A function that takes a line and its metadata, and returns a line that contains both.
Join: TypeAlias = "Callable[[str, Mapping[str, str]], str]"
#: The format of push requests.  Both classes have the same methods, which are thread-safe.
Format: TypeAlias = "JSONFormat | ProtobufFormat"

_SECOND: Final = 1_000_000_000  # in nanoseconds
_FIVE_DIGITS: Final = 1 << 28


class JSONFormat:
    """Encodes push requests as gzipped JSON.

    The JSON is ``{"streams": [{"stream": labels, "values": [[time, line, metadata]]}]}``.
    """

    wire_format: str = "loki-json"
    headers: Mapping[str, str] = {"content-type": "application/json", "content-encoding": "gzip"}

    def stream(self, labels: Mapping[str, str]) -> bytes:
        """Return the labels of a stream as a JSON object.  A stream has at least one label."""
        return orjson.dumps(labels)

    def shared(self, metadata: Mapping[str, str]) -> bytes:
        """Return metadata that many entries share, as members of a JSON object, without braces."""
        return b"," + orjson.dumps(metadata)[1:-1] if metadata else b""

    def entry(
        self, time: int, line: str, observed: int, metadata: Mapping[str, str], shared: bytes
    ) -> bytes:
        """Return an entry as a JSON array.

        ``time`` and ``observed`` are in nanoseconds since the Unix epoch.  ``metadata`` belongs to
        this entry only, and ``shared`` is a result of the method :meth:`shared`.
        """
        own = orjson.dumps(metadata)[:-1] + b"," if metadata else b"{"
        parts = (time, orjson.dumps(line), own, observed, shared)
        return b'["%d",%b,%b"observed_timestamp":"%d"%b}]' % parts

    def bare_entry(self, time: int, line: str) -> bytes:
        """Return an entry without metadata."""
        return b'["%d",%b]' % (time, orjson.dumps(line))

    def in_line(self, entry: bytes, join: Join) -> bytes:
        """Return ``entry`` with its metadata moved into its line by the function ``join``."""
        if not entry.endswith(b"}]"):
            return entry
        time, line, metadata = orjson.loads(entry)
        return self.bare_entry(int(time), join(line, metadata))

    def request(self, streams: Iterable[tuple[bytes, Sequence[bytes]]]) -> bytes:
        """Return a push request with the given streams, each with at least one entry."""
        parts: list[bytes] = []  # joined only once, because copying megabytes is slow
        for stream, entries in streams:
            parts += (b'{"stream":', stream, b',"values":[')
            for entry in entries:
                parts += (entry, b",")
            parts[-1] = b"]}"
            parts.append(b",")
        return b"".join((b'{"streams":[', *parts[:-1], b"]}"))

    def compress(self, request: bytes) -> bytes:
        """Return the gzipped request."""
        return gzip.compress(request, GZIP_LEVEL, mtime=0)

    def split(self, request: bytes) -> list[Item]:
        """Return the entries of a push request.  Raise ``ValueError`` if it is malformed."""
        items: list[Item] = []
        try:
            for stream in orjson.loads(request)["streams"]:
                labels = orjson.dumps(dict(stream["stream"]))
                for time, line, *metadata in stream["values"]:
                    if not isinstance(time, str) or not isinstance(line, str):
                        raise TypeError(time, line)  # noqa: TRY301 - handled like other errors
                    entry = orjson.dumps((time, line, *map(dict, metadata[:1])))
                    items.append((labels, int(time), entry))
        except (AttributeError, KeyError, TypeError) as error:
            msg = f"not a push request of Loki: {error!r:.200}"
            raise ValueError(msg) from None
        return items


class ProtobufFormat:
    """Encodes push requests as ``logproto.PushRequest``, compressed in snappy's block format.

    Raises:
        ConfigurationError: the package for snappy is not installed.
    """

    wire_format: str = "loki-protobuf"
    headers: Mapping[str, str] = {"content-type": "application/x-protobuf"}

    def __init__(self) -> None:
        try:
            from cramjam import snappy  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            msg = "format='protobuf' needs: pip install 'fapilog[loki]', or use format='json'"
            raise ConfigurationError(msg, "format") from error
        self._compress = snappy.compress_raw

    def stream(self, labels: Mapping[str, str]) -> bytes:
        """Return the labels of a stream in Prometheus notation.

        Each value is written as a JSON string, because Prometheus notation accepts JSON's escapes.
        """
        pairs = [b"%b=%b" % (name.encode(), orjson.dumps(labels[name])) for name in sorted(labels)]
        return b"{%b}" % b", ".join(pairs)

    def shared(self, metadata: Mapping[str, str]) -> bytes:
        """Return metadata that many entries share, as protobuf fields of an entry."""
        parts: list[bytes] = []
        for name, text in metadata.items():
            raw = text.encode()
            parts += (_pair_heads[name][len(raw)], raw)
        return b"".join(parts)

    def entry(
        self, time: int, line: str, observed: int, metadata: Mapping[str, str], shared: bytes
    ) -> bytes:
        """Return an entry as a protobuf field of its stream.

        For the arguments, see :meth:`JSONFormat.entry`.
        """
        seconds, nanoseconds = divmod(time, _SECOND)
        moment = _seconds[seconds] + _nanoseconds(nanoseconds)
        raw = line.encode()
        parts = [b"\x0a", varint(len(moment)), moment, _line_heads[len(raw)], raw]
        for name, text in metadata.items():
            raw = text.encode()
            parts += (_pair_heads[name][len(raw)], raw)
        seen = b"%d" % observed
        parts += (_pair_heads[OBSERVED][len(seen)], seen, shared)
        return delimited(b"\x12", b"".join(parts))

    def bare_entry(self, time: int, line: str) -> bytes:
        """Return an entry without metadata."""
        seconds, nanoseconds = divmod(time, _SECOND)
        moment = _seconds[seconds] + _nanoseconds(nanoseconds)
        return delimited(b"\x12", delimited(b"\x0a", moment) + delimited(b"\x12", line.encode()))

    def in_line(self, entry: bytes, join: Join) -> bytes:
        """Return an entry whose metadata is moved into its line by the function ``join``."""
        message = bytes_field(entry, 2)
        parts = list(fields(message))
        metadata = {
            bytes_field(pair, 1).decode(): bytes_field(pair, 2).decode()
            for pair in messages(parts, 3)
        }
        if not metadata:
            return entry
        line = join(last(parts, 2).decode(), metadata)
        moment = delimited(b"\x0a", last(parts, 1))
        return delimited(b"\x12", moment + delimited(b"\x12", line.encode()))

    def request(self, streams: Iterable[tuple[bytes, Sequence[bytes]]]) -> bytes:
        """Return a push request with the given streams and their entries."""
        parts: list[bytes] = []
        for stream, entries in streams:
            labels = delimited(b"\x0a", stream)
            size = len(labels) + sum(map(len, entries))
            parts += (b"\x0a" + varint(size), labels, *entries)
        return b"".join(parts)

    def compress(self, request: bytes) -> bytes:
        """Return the request in snappy's block format."""
        return bytes(self._compress(request))

    def split(self, request: bytes) -> list[Item]:
        """Return the entries of a push request.  Raise ``ValueError`` if it is malformed."""
        items: list[Item] = []
        for stream in messages(fields(request), 1):
            parts = list(fields(stream))
            labels = b"".join(messages(parts, 1))
            for entry in messages(parts, 2):
                moment = bytes_field(entry, 1)
                time = int64_field(moment, 1) * _SECOND + int64_field(moment, 2)
                items.append((labels, time, delimited(b"\x12", entry)))
        return items


class InLine:
    """Encodes entries that contain their metadata in the line.

    Args:
        format: the format of the requests that will contain the entries.
        join: the function that adds metadata to a line.
    """

    def __init__(self, format: Format, join: Join) -> None:  # noqa: A002 - as in LokiSink
        self.stream = format.stream
        self._bare_entry = format.bare_entry
        self._join = join

    def shared(self, metadata: Mapping[str, str]) -> bytes:
        """Return metadata that many entries share, as members of a JSON object, without braces."""
        return b"," + orjson.dumps(metadata)[1:-1] if metadata else b""

    def entry(
        self, time: int, line: str, observed: int, metadata: Mapping[str, str], shared: bytes
    ) -> bytes:
        """Return an entry whose line contains ``metadata``, ``shared`` and ``observed``.

        For the arguments, see :meth:`JSONFormat.entry`.
        """
        pairs = orjson.loads(b'{"observed_timestamp":"%d"%b}' % (observed, shared))
        return self._bare_entry(time, self._join(line, {**metadata, **pairs}))


def _pair_head(name: str, length: int) -> bytes:
    """Return the encoded bytes that precede a metadata value of ``length`` bytes.

    ``name`` is the name of the metadata.
    """
    before = delimited(b"\x0a", name.encode()) + b"\x12" + varint(length)
    return b"\x1a" + varint(len(before) + length) + before


def _nanoseconds(number: int) -> bytes:
    """Encode a number of nanoseconds as a varint.

    Varints of five bytes, the usual length, have a fast path.
    """
    if number < _FIVE_DIGITS:
        return varint(number)
    return bytes(
        (
            number & 0x7F | 0x80,
            number >> 7 & 0x7F | 0x80,
            number >> 14 & 0x7F | 0x80,
            number >> 21 & 0x7F | 0x80,
            number >> 28,
        )
    )


_line_heads: Final[Memo[int, bytes]] = Memo(lambda length: b"\x12" + varint(length), 1024)
_seconds: Final[Memo[int, bytes]] = Memo(lambda time: b"\x08" + varint(time) + b"\x10", 64)
_pair_heads: Final[Memo[str, Memo[int, bytes]]] = Memo(
    lambda name: Memo(partial(_pair_head, name), 128), 512
)
