"""Bounds of one record, and which types need no snapshot.

A record is bounded where it begins, so that everything after - queue, batches,
spool - is bounded by counting records.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Final

from fapilog.errors import ConfigurationError

#: Types that need no snapshot, because their values cannot change.
SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})

#: OTLP can carry 31 levels: a parser of protobuf gives up at 100 nested
#: messages, 6 are around the attributes, and every level takes 3.
_MAX_DEPTH: Final = 30


@dataclass(frozen=True)
class Limits:
    """Bounds of one record.  What is beyond them is cut off and marked.

    Attributes:
        depth: containers within containers, 1 to 30.
        nodes: values in the containers of the body, or of one attribute,
            counted together; at least 1.
        text: characters of one string, or bytes of one byte string; at least 1.
        record: UTF-8 bytes of all texts of a record, at least 4096.  A value
            in a container counts for 8 more, an attribute for 16.
        attributes: attributes of a record; the default is the OpenTelemetry
            specification's.
        attribute_text: the same as ``text`` for the values of attributes, at
            least 0; None for no other limit.  The body is not cut by it.
            Source: https://opentelemetry.io/docs/specs/otel/common/#attribute-limits

    Raises:
        ConfigurationError: a limit is out of range.
    """

    depth: int = 16
    nodes: int = 1000
    text: int = 65_536
    record: int = 262_144
    attributes: int = 128
    attribute_text: int | None = None

    def __post_init__(self) -> None:
        least = {
            "depth": 1,
            "nodes": 1,
            "text": 1,
            "record": 4096,
            "attributes": 0,
            "attribute_text": 0,
        }
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "attribute_text":
                value = 0 if value is None else value
            if type(value) is not int or value < least[option.name]:
                msg = f"limits: {option.name} must be an integer from {least[option.name]} up"
                raise ConfigurationError(msg)
        if self.depth > _MAX_DEPTH:
            msg = f"limits: depth must be at most {_MAX_DEPTH}, the most that OTLP can carry"
            raise ConfigurationError(msg)

    @cached_property
    def for_attributes(self) -> Limits:
        """The limits of the values of attributes."""
        if self.attribute_text is None or self.attribute_text >= self.text:
            return self
        return replace(self, text=max(self.attribute_text, 1), attribute_text=None)

    @cached_property
    def shortest(self) -> int:
        """Characters that no text of a record may exceed without being looked at."""
        return min(self.text, self.for_attributes.text)


DEFAULT_LIMITS: Final = Limits()
