"""Formats a batch of log records as lines of text, for ``fapilog spool quarantine``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from fapilog.otlp.decode import decode_request, decode_span, split_request
from fapilog.otlp.decode_json import split_request_json
from fapilog.otlp.encode_json import SPANS
from fapilog.otlp.protobuf import bytes_field, fields
from fapilog.sinks.lines import json_line, json_text, without_commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_HEX: Final = 32


def lines_of(wire_format: str, body: bytes) -> list[str]:
    """Decode the batch ``body``, and return one line of text per record or span.

    If ``wire_format`` is not supported, return the lines of the body as text.  If the body cannot
    be decoded, return a single line with its size and its first bytes.
    """
    try:
        reader = _READERS.get(wire_format)
        return body.decode().splitlines() if reader is None else list(reader(body))
    except (ValueError, KeyError, TypeError):
        more = "…" if len(body) > _HEX else ""
        start = f"{body[:_HEX].hex()}{more}"
        return [f"{len(body)} bytes of {wire_format or 'an unknown format'}: {start}"]


def _otlp(body: bytes) -> Iterator[str]:
    for record in decode_request(body):
        yield json_line(record).decode().rstrip()


def _otlp_json(body: bytes) -> Iterator[str]:
    for _, _, record in split_request_json(body):
        yield record.decode()


def _spans(body: bytes) -> Iterator[str]:
    for _, scope, encoded in split_request(body):
        fields = {**decode_span(encoded), "scope": scope.name}
        yield without_commands(json_text(fields).encode()).decode()


def _spans_json(body: bytes) -> Iterator[str]:
    for _, _, span in split_request_json(body, SPANS):
        yield without_commands(span).decode()


def _loki_json(body: bytes) -> Iterator[str]:
    for stream in orjson.loads(body)["streams"]:
        for entry in stream["values"]:
            yield orjson.dumps([stream["stream"], *entry]).decode()


def _loki(body: bytes) -> Iterator[str]:
    """Yield the labels, line and metadata of each entry in Loki's protobuf ``PushRequest``."""
    for stream in _repeated(body, 1):
        labels = bytes_field(stream, 1).decode()
        for entry in _repeated(stream, 2):
            metadata = {
                bytes_field(pair, 1).decode(): bytes_field(pair, 2).decode()
                for pair in _repeated(entry, 3)
            }
            line = bytes_field(entry, 2).decode()
            yield orjson.dumps([labels, line, metadata]).decode()


def _repeated(message: bytes, number: int) -> Iterator[bytes]:
    for found, value in fields(message):
        if found == number and isinstance(value, bytes):
            yield value


_READERS: Final[Mapping[str, Callable[[bytes], Iterator[str]]]] = {
    "otlp-protobuf": _otlp,
    "otlp-json": _otlp_json,
    "otlp-traces-protobuf": _spans,
    "otlp-traces-json": _spans_json,
    "loki-json": _loki_json,
    "loki-protobuf": _loki,
}
