"""Determines the id of a request and the trace of its caller from the request's headers.

The id is added to every record of the request and sent back to the client.  Therefore an id
from a header is used only if it is short and contains only harmless characters.  If the
header has no such id, a random id is generated.
"""

from __future__ import annotations

import os
import random
import re
from typing import TYPE_CHECKING, Final

from opentelemetry import propagate
from opentelemetry.context import get_current
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, get_current_span

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from opentelemetry.context import Context

    Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

#: The name of the log attribute that contains the request's id.
REQUEST_ID: Final = "request.id"
_ALLOWED: Final = re.compile(rb"[A-Za-z0-9._:@/+=\-]{1,128}").fullmatch

# Request ids must be unique but not secret, and os.urandom would cost a system call per id.  The
# global random.getrandbits() is not used, because an application may call random.seed().
_random: Final = random.Random()  # noqa: S311 - not a secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def request_id(given: bytes | None) -> str:
    """Return the id of a request.

    Args:
        given: the value of the request's id header, or None.  It is returned if it consists
            of 1 to 128 letters, digits and ``._:@/+=-``.  Otherwise 32 random hex digits are
            returned.
    """
    if given is not None and _ALLOWED(given):
        return given.decode("ascii")
    return f"{_random.getrandbits(128):032x}"


class _Headers(Getter["Headers"]):
    """Reads the headers of an ASGI scope for OpenTelemetry's propagators.

    The values of repeated headers are joined with a comma.  Two ``traceparent`` headers
    therefore become an invalid value, and two ``tracestate`` headers become a valid list.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-5.3
    """

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1")
        found = [value.decode("latin-1") for name, value in carrier if name == wanted]
        return [",".join(found)] if found else None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_HEADERS: Final = _Headers()


def carrier_names() -> frozenset[bytes]:
    """Return the lower-case names of the headers that OpenTelemetry's global propagator reads."""
    return frozenset(name.lower().encode() for name in propagate.get_global_textmap().fields)


def remote_context(headers: Headers) -> Context:
    """Return the current OpenTelemetry context, with the trace from the caller's headers added."""
    return propagate.extract(headers, getter=_HEADERS)


def active_span() -> Span | None:
    """Return OpenTelemetry's current span, or None if the current span is not valid."""
    if not get_current():  # an empty context contains no span
        return None
    span = get_current_span()
    return span if span.get_span_context().is_valid else None


def trace_headers(span: Span) -> list[tuple[bytes, bytes]]:
    """Return the response headers ``traceparent`` and ``x-trace-id`` for a span.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    context = span.get_span_context()
    trace_id = f"{context.trace_id:032x}"
    parent = f"00-{trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
    return [(b"traceparent", parent.encode()), (b"x-trace-id", trace_id.encode())]
