"""Logs the completion record: the record that summarizes a request when the request ends.

Each ``FapilogMiddleware`` has one ``Recorder``.  When a request ends, the ``Recorder`` reads
the state of the request from its ``Exchange``.  It decides whether the request is logged, and
with which severity, and logs the record with the request's trace and span ids.
"""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import get_current_span, use_span
from starlette.exceptions import HTTPException, WebSocketException

import fapilog
from fapilog.severity import ERROR, INFO, WARN, Severity
from fapilog_fastapi.attributes import known_methods, length, request_attributes, type_name
from fapilog_fastapi.correlation import REQUEST_ID
from fapilog_fastapi.exchange import (
    CANCELLED,
    DISCONNECTED,
    DISCONNECTS,
    FAILED,
    FAILURE,
    INCOMPLETE,
    INTERNAL_ERROR,
    Exchange,
    WebSocketExchange,
)
from fapilog_fastapi.failures import is_validation_error, mark_as_logged, validation_errors
from fapilog_fastapi.metrics import RequestMetrics
from fapilog_fastapi.options import Options, severity_table
from fapilog_fastapi.queries import redact_query
from fapilog_fastapi.routes import route_template

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

#: The name of the logger that logs the completion records.  Their OpenTelemetry scope has the
#: same name.
LOGGER: Final = "fapilog_fastapi"
#: The event names of the records that the middleware logs.  OpenTelemetry's conventions do not
#: yet define names for these events.
REQUEST_COMPLETED: Final = "http.server.request.completed"
WEBSOCKET_CLOSED: Final = "http.server.websocket.closed"
EXCEPTION: Final = "http.server.request.exception"
#: Fields with these names would be mistaken for the parameters of ``Logger.log``.
_PARAMETERS: Final = ("event_name", "extra", "stack_info", "stacklevel")

_REFUSAL: Final = 400
#: HTTP statuses of responses without a body: servers drop a body that the application sends.
#: Source: https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1
_BODILESS: Final = frozenset({204, 304})
_QUIET: Final = 30.0


class Recorder:
    """Logs the completion records of one ``FapilogMiddleware``.

    The methods neither raise nor block.

    Attributes:
        header: the name, in lower case, of the header for the request's id, or b"" if the
            option ``request_id_header`` is None.
        adds_headers: whether the request's id or trace headers are added to responses.
        releases_sampled: whether the buffered debug records of a request are logged as soon
            as its trace is known to be sampled.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.header = (options.request_id_header or "").lower().encode()
        self.adds_headers = bool(self.header) or options.trace_headers
        self.hold = options.hold
        self.releases_sampled = self.hold is not None and self.hold.sampled
        wanted = options.metrics
        # With metrics=False, a RequestMetrics does not use OpenTelemetry, but still counts
        # requests for the route /metrics, if that route was added.
        self.metrics = RequestMetrics(opentelemetry=wanted) if isinstance(wanted, bool) else wanted
        self._log = fapilog.get_logger(LOGGER)
        self._severities = severity_table(options.severity)
        self._methods = known_methods()
        self._slow = float("inf") if options.slow is None else float(options.slow)
        self._failing = FAILURE if self.hold is None else self.hold.status
        self._sampled_ids = round(options.sample * (1 << 64))
        self._troubles: dict[str, tuple[float, int]] = {}

    def complete(self, exchange: Exchange, duration: float) -> None:
        """Log the completion record of a request that took ``duration`` seconds.

        The record has the ids of ``exchange.span``, even if that span has ended or another
        span is current.
        """
        try:
            with _within(exchange.span):
                self._complete(exchange, duration)
        except Exception as error:  # noqa: BLE001 - the application's objects may raise anything
            self.trouble("the completion record", error)

    def _complete(self, exchange: Exchange, duration: float) -> None:
        status = self._status(exchange)
        code = status or 0
        failed = exchange.outcome == FAILED or exchange.broken or code >= FAILURE
        is_slow = duration >= self._slow
        if exchange.hold is not None and (failed or is_slow or code >= self._failing):
            exchange.hold.release()
        route = route_template(exchange.routed)
        self._measure(exchange, route, status, duration, failed)
        is_success = not (failed or is_slow or exchange.outcome or code >= _REFUSAL)
        if is_success and not self._is_sampled(exchange.span):
            return
        log, attributes = self._with_fields(exchange)
        attributes.update(request_attributes(exchange.scope, exchange.headers))
        if route is not None:
            attributes["http.route"] = route
        if isinstance(exchange, WebSocketExchange):
            name, event = "WebSocket", WEBSOCKET_CLOSED
            severity = self._websocket_attributes(exchange, attributes)
        else:
            name, event = self._method(exchange.scope["method"], attributes), REQUEST_COMPLETED
            severity = self._http_attributes(exchange, status, attributes)
        attributes[REQUEST_ID] = exchange.request_id
        attributes["http.server.request.duration"] = duration
        if query := exchange.scope.get("query_string"):
            attributes["url.query"] = redact_query(query)
        self._ending(exchange, status, failed, attributes)
        # A failed request without a response is logged with the status 500.  Adding the word
        # "failed" to the log message would be redundant.
        is_shown = exchange.status is None and exchange.outcome == FAILED
        ending = "" if is_shown else exchange.outcome
        words = (name, route or exchange.scope["path"], self._code(exchange, status), ending)
        body = " ".join(filter(None, words))
        attributes["event_name"] = event
        log.log(Severity(severity), body, **attributes)

    def _with_fields(self, exchange: Exchange) -> tuple[fapilog.Logger, dict[str, Any]]:
        """Return the logger, and the request's fields as keyword arguments for its method ``log``.

        Fields that have the name of a parameter of ``log``, such as ``event_name``, are bound
        to the returned logger instead.  The field ``exc_info`` is omitted, because ``log``
        would interpret its value as an exception.
        """
        attributes = dict(exchange.fields)
        attributes.pop("exc_info", None)
        bound = {name: attributes.pop(name) for name in _PARAMETERS if name in attributes}
        return (self._log.bind(**bound) if bound else self._log), attributes

    def _ending(
        self, exchange: Exchange, status: int | None, failed: bool, attributes: dict[str, Any]
    ) -> None:
        """Add to ``attributes`` the outcome, headers, bodies and error of the request, if any."""
        if exchange.outcome:
            attributes["request.outcome"] = exchange.outcome
        if isinstance(exchange.error, DISCONNECTS):
            mark_as_logged(exchange.error)
        if exchange.capture is not None:
            attributes.update(exchange.capture.attributes(status))
        if exchange.error is not None:
            self._error_attributes(exchange, exchange.error, failed, attributes)
        elif failed:
            attributes["error.type"] = str(INTERNAL_ERROR if exchange.broken else status)

    def _measure(
        self,
        exchange: Exchange,
        route: str | None,
        status: int | None,
        duration: float,
        failed: bool,
    ) -> None:
        error = exchange.error if failed else None
        self.metrics.finished(
            exchange.scope,
            route,
            status,
            duration,
            None if error is None or answer_of(error, status) else type_name(type(error)),
            request_size=request_size(exchange),
            response_size=response_size(exchange),
        )

    def _status(self, exchange: Exchange) -> int | None:
        """Return the response status that the client receives, or None if it receives no response.

        If the application failed before it started a response, the server responds with 500.
        """
        if exchange.status is None and exchange.outcome == FAILED:
            return None if isinstance(exchange, WebSocketExchange) else FAILURE
        return exchange.status

    def _http_attributes(
        self, exchange: Exchange, status: int | None, attributes: dict[str, Any]
    ) -> int:
        """Add the attributes that only HTTP requests have, and return the record's severity."""
        if status is not None:
            attributes["http.response.status_code"] = status
        if (size := request_size(exchange)) is not None:
            attributes["http.request.body.size"] = size
        if (size := response_size(exchange)) is not None:
            attributes["http.response.body.size"] = size
        if exchange.outcome == FAILED:
            return max(ERROR, self._severities.get(status or FAILURE, ERROR))
        if exchange.outcome == DISCONNECTED:
            return ERROR if exchange.broken else INFO
        if exchange.outcome:
            return WARN
        return self._severities.get(status or 0, INFO)

    def _websocket_attributes(self, exchange: WebSocketExchange, attributes: dict[str, Any]) -> int:
        """Add the attributes that only WebSockets have, and return the record's severity."""
        attributes["network.protocol.name"] = "websocket"
        attributes["websocket.accepted"] = exchange.accepted
        if exchange.status is not None:
            attributes["http.response.status_code"] = exchange.status
        if exchange.code is not None and exchange.accepted:
            attributes["websocket.close.code"] = exchange.code
            attributes["websocket.closed_by"] = exchange.closed_by
        if exchange.outcome == FAILED or exchange.broken:
            return ERROR
        if exchange.outcome in {CANCELLED, INCOMPLETE}:
            return WARN
        return self._severities.get(exchange.status or 0, INFO)

    @staticmethod
    def _code(exchange: Exchange, status: int | None) -> str:
        if isinstance(exchange, WebSocketExchange) and exchange.accepted:
            return str(exchange.code or "")
        return str(status or "")

    def _method(self, method: str, attributes: dict[str, Any]) -> str:
        """Add the HTTP method to ``attributes``, and return the method for the log message.

        For an unknown method, the attribute is ``_OTHER`` and the message says ``HTTP``.
        """
        if method in self._methods:
            attributes["http.request.method"] = method
            return method
        attributes["http.request.method"] = "_OTHER"
        attributes["http.request.method_original"] = method
        return "HTTP"

    def _error_attributes(
        self,
        exchange: Exchange,
        error: BaseException,
        failed: bool,
        attributes: dict[str, Any],
    ) -> None:
        """Add the attributes of an exception, with its stack trace if the request failed."""
        if is_validation_error(error):
            attributes.update(validation_errors(error, inputs=self.options.validation_inputs))
            return
        if exchange.outcome == CANCELLED:
            attributes["error.type"] = type_name(type(error))
            return
        if not failed:
            return
        answer = "" if exchange.outcome == FAILED else answer_of(error, self._status(exchange))
        if answer:
            # The application raised this exception to choose the response.  The stack trace is
            # logged only if another exception caused this exception.
            attributes["error.type"] = answer
            if error.__cause__ is None:
                return
        else:
            attributes["error.type"] = type_name(type(error))
        attributes["exc_info"] = error
        exchange.logged = id(error)
        if self._log.is_enabled(Severity.ERROR):
            mark_as_logged(error)

    def late(self, exchange: Exchange, error: Exception) -> None:
        """Log an exception that was raised after the response was sent.

        For example, a background task may raise it.  Does nothing if the completion record
        already contains the exception.
        """
        if id(error) == exchange.logged:
            return
        if isinstance(error, DISCONNECTS):
            mark_as_logged(error)  # the server need not log that the client disconnected
            return
        try:
            if exchange.hold is not None:
                exchange.hold.release()
            route = route_template(exchange.routed)
            name = exchange.scope.get("method", "WebSocket")
            attributes: dict[str, Any] = {
                REQUEST_ID: exchange.request_id,
                "error.type": type_name(type(error)),
                "exc_info": error,
            }
            if route is not None:
                attributes["http.route"] = route
            body = f"exception after the response of {name} {route or exchange.scope['path']}"
            with _within(exchange.span):
                self._log.log(Severity.ERROR, body, event_name=EXCEPTION, **attributes)
            if self._log.is_enabled(Severity.ERROR):
                mark_as_logged(error)
        except Exception as failure:  # noqa: BLE001 - as in complete()
            self.trouble("an exception after a response", failure)

    def _is_sampled(self, span: Span | None) -> bool:
        """Return whether a successful request is logged, according to the option ``sample``.

        The decision depends on the trace id, if there is one, so that all processes make the
        same decision for a trace.

        Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased
        """
        if self._sampled_ids >> 64:
            return True
        if span is None:
            return random.random() < self.options.sample  # noqa: S311 - not a secret
        return span.get_span_context().trace_id & ((1 << 64) - 1) < self._sampled_ids

    def trouble(self, what: str, error: Exception) -> None:
        """Log a failure of the operation ``what``, which must not make the request fail.

        Failures of the same operation are logged at most once per 30 seconds.
        """
        now = time.monotonic()
        last, count = self._troubles.get(what, (-_QUIET, 0))
        if now - last < _QUIET:
            self._troubles[what] = (last, count + 1)
            return
        self._troubles[what] = (now, 0)
        self._log.log(Severity.WARN, f"{what} failed", exc_info=error, failures=count + 1)


def request_size(exchange: Exchange) -> int | None:
    """Return the size of the request's body in bytes, or None if the request has no body.

    A valid ``Content-Length`` header takes precedence over the number of received bytes.
    """
    declared = length(exchange.headers.get(b"content-length"))
    return (exchange.request_size or None) if declared is None else declared


def response_size(exchange: Exchange) -> int | None:
    """Return the size of the response's body in bytes.

    None means that the size is unknown or that the response has no body.
    """
    status = exchange.status
    if status is None or status in _BODILESS or exchange.scope.get("method") == "HEAD":
        return None
    return exchange.response_size


def answer_of(error: BaseException, status: int | None) -> str:
    """Return the status or close code that the application sent by raising ``error``, else "".

    Only an ``HTTPException`` with the response's status, or a ``WebSocketException``, counts
    as a deliberate response.  All other exceptions are failures.
    """
    if isinstance(error, HTTPException) and error.status_code == status:
        return str(status)
    if isinstance(error, WebSocketException):
        return str(error.code)
    return ""


def _within(span: Span | None) -> AbstractContextManager[object]:
    """Return a context manager that makes ``span`` the current span, unless ``span`` is None."""
    if span is None or span is get_current_span():
        return nullcontext()
    return use_span(span, record_exception=False, set_status_on_exception=False)
