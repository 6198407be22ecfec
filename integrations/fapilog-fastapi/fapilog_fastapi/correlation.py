"""The id that ties the records of a request together, taken from a header or made.

A header is input: it is taken only where it is short and plain, because it
goes into every record of the request and back to the client.
"""

from __future__ import annotations

import os
import random
import re
from typing import TYPE_CHECKING, Final

from opentelemetry import propagate
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, get_current_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

#: The attribute that holds the id.
REQUEST_ID: Final = "request.id"
_ALLOWED: Final = re.compile(rb"[A-Za-z0-9._:@/+=\-]{1,128}").fullmatch

# Ids are to be unique, not secret; the system's source costs a call each time.
# Not the module's own generator, which applications seed as they like.
_random: Final = random.Random()  # noqa: S311 - as above
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def request_id(given: bytes | None) -> str:
    """Return the id of a request.

    Args:
        given: the header's value; taken when it has 1 to 128 letters, digits
            and ``._:@/+=-``.  Otherwise 32 random hex digits are made.
    """
    if given is not None and _ALLOWED(given):
        return given.decode("ascii")
    return f"{_random.getrandbits(128):032x}"


class _Headers(Getter["Mapping[bytes, bytes]"]):
    """How a propagator reads the headers of a scope."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode("latin-1"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


_HEADERS: Final = _Headers()


def carrier_names() -> frozenset[bytes]:
    """Return the names of the headers that the global propagator reads."""
    return frozenset(name.lower().encode() for name in propagate.get_global_textmap().fields)


def remote_context(headers: Mapping[bytes, bytes]) -> Context:
    """Return the current context with what the caller's trace headers say."""
    return propagate.extract(headers, getter=_HEADERS)


def active_span() -> Span | None:
    """Return the current span, None where there is none."""
    span = get_current_span()
    return span if span.get_span_context().is_valid else None


def trace_headers(span: Span) -> list[tuple[bytes, bytes]]:
    """Return ``traceparent`` and ``x-trace-id`` for a response.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    context = span.get_span_context()
    trace_id = f"{context.trace_id:032x}"
    parent = f"00-{trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
    return [(b"traceparent", parent.encode()), (b"x-trace-id", trace_id.encode())]
