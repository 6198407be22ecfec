"""Asks a backend for the record that it has just accepted.

Loki accepts records for any tenant, so only a query proves where a record is.  A collector cannot
be asked for its records.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson

from fapilog.cli.faults import LOKI_OTLP_PATH
from fapilog.errors import SendError
from fapilog.native import monotonic
from fapilog.sinks.http.client import HTTPClient
from fapilog.sinks.http.options import user_agent
from fapilog.sinks.loki.metadata import origin_of
from fapilog.sinks.loki.options import PUSH_PATH
from fapilog.sinks.loki.sink import LokiSink
from fapilog.sinks.otlp.options import GRPC
from fapilog.sinks.otlp.signal import LOGS
from fapilog.sinks.otlp.sink import OTLPSink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fapilog.record import LogRecord
    from fapilog.sinks.http.options import HTTPOptions

#: The attribute of a record that contains its unique id.  Source:
#: https://opentelemetry.io/docs/specs/semconv/general/logs/
RECORD_ID: Final = "log.record.uid"

#: The errors of reading an answer that is not JSON, or other JSON than Loki's.
_NOT_LOKI: Final = (ValueError, LookupError, TypeError)
_QUERY_PATH: Final = "/loki/api/v1/query_range"
_TENANT: Final = "x-scope-orgid"
_PAUSE: Final = 0.1  # seconds between the first two queries; the pause doubles up to _LONGEST
_LONGEST: Final = 1.0
#: The entries that one query asks for: those within so many nanoseconds of the record's time, and
#: at most so many.
_WINDOW: Final = 1_000_000
_MOST: Final = 1000
_DAY: Final = 86_400_000_000_000  # nanoseconds


class ReadBack(NamedTuple):
    """The result of asking a backend for a record.

    Attributes:
        found: whether the backend has the record, or None if this is not known.
        words: the place where the record was looked for, or the reason why this was not possible.
        note: something about the place that is probably wrong, or "".
    """

    found: bool | None
    words: str
    note: str = ""


def read_back(sink: object, record: LogRecord, deadline: float) -> ReadBack:
    """Ask the backend of ``sink`` for ``record``, again and again until ``deadline``.

    Blocks until the record is found or ``deadline`` has passed, in seconds of the monotonic clock.
    At least one query is sent, which may take a second even after ``deadline``.
    """
    reader = _reader_of(sink, record)
    if reader is None:
        return ReadBack(None, "fapilog can query only Loki")
    try:
        return reader.read(deadline)
    except SendError as error:  # often the credentials can write but cannot read
        return ReadBack(None, str(error))
    except _NOT_LOKI:
        return ReadBack(None, "the answer to the query is not that of Loki")
    finally:
        reader.client.close()


def _reader_of(sink: object, record: LogRecord) -> _LokiReader | None:
    if isinstance(sink, LokiSink):
        given = sink.options
        labels = origin_of(
            record.resource,
            record.scope,
            record.severity_number,
            record.severity_text,
            given.labels,
            static=given.static_labels,
        ).labels
        return _reader(given, PUSH_PATH, given.tenant, labels, record)
    if isinstance(sink, OTLPSink) and sink.signal is LOGS and sink.options.protocol != GRPC:
        name = str(record.resource.attributes.get("service.name", "unknown_service"))
        tenant = sink.options.headers.get(_TENANT, "")
        return _reader(sink.options, LOKI_OTLP_PATH, tenant, {"service_name": name}, record)
    return None


def _reader(
    options: HTTPOptions, end: str, tenant: str, labels: Mapping[str, str], record: LogRecord
) -> _LokiReader | None:
    """Return a reader for the Loki to whose path ``end`` the sink writes, or None."""
    url = urlsplit(options.endpoint)
    path = url.path.rstrip("/")
    if not path.endswith(end):
        return None
    query = urlunsplit(url._replace(path=path.removesuffix(end) + _QUERY_PATH))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if tenant:
        headers[_TENANT] = tenant
    client = HTTPClient(
        replace(options, endpoint=query), user_agent("check"), headers, refuses_long=False
    )
    return _LokiReader(client, tenant, labels, record)


class _LokiReader:
    """Queries one Loki with the credentials and the tenant of a sink.

    The query is sent with POST, which Loki accepts like GET.  Source:
    https://grafana.com/docs/loki/latest/reference/loki-http-api/#query-logs-within-a-range-of-time
    """

    def __init__(
        self, client: HTTPClient, tenant: str, labels: Mapping[str, str], record: LogRecord
    ) -> None:
        self.client = client
        self._tenant = tenant
        self._selector = ", ".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items()
        )
        self._record = record

    def read(self, deadline: float) -> ReadBack:
        place = f"tenant {self._tenant!r}" if self._tenant else "Loki"
        pause = _PAUSE
        while not self._has_record(deadline):
            if monotonic() + pause > deadline:
                return ReadBack(found=False, words=place)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST)
        note = ""
        if self._tenant and not self._has_earlier(deadline):
            note = f"{place} had no records in the last day before this one: is its name right?"
        return ReadBack(found=True, words=place, note=note)

    def _has_record(self, deadline: float) -> bool:
        moment = self._record.timestamp
        start, end = moment - _WINDOW, moment + _WINDOW
        streams = self._query(f"{{{self._selector}}}", start, end, _MOST, deadline)
        # The id is in the metadata, in the labels or in the line, as Loki is configured.
        return str(self._record.attributes[RECORD_ID]) in json.dumps(streams)

    def _has_earlier(self, deadline: float) -> bool:
        moment = self._record.timestamp
        try:
            return bool(self._query('{service_name=~".+"}', moment - _DAY, moment, 1, deadline))
        except (SendError, *_NOT_LOKI):
            return True  # not known, so there is nothing to tell

    def _query(self, query: str, start: int, end: int, limit: int, deadline: float) -> Any:
        """Return the streams that Loki finds between two times, in nanoseconds."""
        form = {"query": query, "start": start, "end": end, "limit": limit}
        left = max(deadline - monotonic(), _LONGEST)
        answer = self.client.post(urlencode(form).encode(), left)
        return orjson.loads(answer.body)["data"]["result"]
