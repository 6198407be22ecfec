"""Decodes OTLP/JSON requests that fapilog has stored on disk.

``split_request_json`` takes a request that ``fapilog.otlp.encode_json`` has made, and returns each
record as JSON.  Resources and scopes are decoded, because a sink groups records by resource and
scope.  Malformed JSON raises ``ValueError`` and no other error.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from fapilog.otlp.decode import MAX_DEPTH
from fapilog.otlp.encode_json import LOGS
from fapilog.record import Resource, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.otlp.encode import Item
    from fapilog.otlp.encode_json import Names

#: The errors that a malformed request can cause in the functions that decode its parts.
_MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


def split_request_json(request: bytes, names: Names = LOGS) -> list[Item]:
    """Split a request into encoded records, each with its resource and scope, in order.

    Args:
        request: the request as JSON.
        names: :data:`LOGS` for a request with records, :data:`SPANS` for one with spans.

    Raises:
        ValueError: the request is malformed.
    """
    items: list[Item] = []
    try:
        for logs in orjson.loads(request)[names.resources]:
            resource = _resource(orjson.dumps(logs["resource"]), _text(logs["schemaUrl"]))
            for of_scope in logs[names.scopes]:
                scope = _scope(orjson.dumps(of_scope["scope"]), _text(of_scope["schemaUrl"]))
                records = [dict(record) for record in of_scope[names.records]]
                items += [(resource, scope, orjson.dumps(record)) for record in records]
    except _MALFORMED as error:
        msg = f"not a request of OTLP/JSON: {error!r:.200}"
        raise ValueError(msg) from None
    return items


@lru_cache(maxsize=64)
def _resource(encoded: bytes, schema_url: str) -> Resource:
    return Resource(_attributes(orjson.loads(encoded)["attributes"]), schema_url)


@lru_cache(maxsize=1024)
def _scope(encoded: bytes, schema_url: str) -> Scope:
    scope: Any = orjson.loads(encoded)
    attributes = _attributes(scope["attributes"])
    return Scope(_text(scope["name"]), _text(scope["version"]), schema_url, attributes)


def _attributes(pairs: Any, depth: int = 0) -> dict[str, Any]:
    return {_text(pair["key"]): _any_value(pair.get("value") or {}, depth) for pair in pairs}


def _any_value(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        msg = f"values nested more than {MAX_DEPTH} deep"
        raise ValueError(msg)
    for kind, content in value.items():
        return _VALUES[kind](content, depth + 1)
    return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    raise TypeError(content)


def _array(content: Any, depth: int) -> list[Any]:
    return [_any_value(value, depth) for value in content.get("values") or ()]


_VALUES: Final[dict[str, Callable[[Any, int], Any]]] = {
    "stringValue": lambda content, _depth: _text(content),
    "boolValue": lambda content, _depth: bool(content),
    "intValue": lambda content, _depth: int(content),
    "doubleValue": lambda content, _depth: float(content),
    "bytesValue": lambda content, _depth: base64.b64decode(content, validate=True),
    "arrayValue": _array,
    "kvlistValue": lambda content, depth: _attributes(content.get("values") or (), depth),
}
