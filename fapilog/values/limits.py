"""Defines the size limits of a record, and the types whose values need no copy.

The size of a record is limited when the record is created.  Therefore a limit on the number of
records also limits the memory of the queue and the batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from fapilog.errors import ConfigurationError

#: The types whose values are stored without a copy, because they cannot change.
SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})

#: Protobuf parsers accept 100 nested messages.  In an OTLP request, the ``AnyValue`` of an
#: attribute is the sixth message, and each level of nested containers adds 3 messages, so 30
#: levels need 96 messages.
_MAX_DEPTH: Final = 30
_LEAST: Final = {"depth": 1, "nodes": 1, "record": 4096}


@dataclass(frozen=True)
class Limits:
    """The size limits of one record.

    A value that exceeds a limit is truncated.  A string that begins with ``…`` replaces the
    missing items or characters.

    Attributes:
        depth: the maximum number of levels of nested containers, 1 to 30.
        nodes: the maximum number of values in the containers of the body, or in the containers of
            one attribute, including values in nested containers; at least 1.
        text: the maximum number of characters in one string, or bytes in one byte string.
        record: the maximum size of a record, at least 4096.  The size is the number of UTF-8 bytes
            in the record's strings, plus 8 per value in a container, 16 per attribute, and 64 per
            record.
        attributes: the maximum number of attributes of a record; further attributes are dropped.
            The default is the default of the OpenTelemetry specification.
        attribute_text: the maximum number of characters in each string of an attribute's value,
            if this number is below ``text``; None means that only ``text`` applies.

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
        for option, value in vars(self).items():
            least = _LEAST.get(option, 0)
            is_unset = option == "attribute_text" and value is None
            if not is_unset and (type(value) is not int or value < least):
                msg = f"limits: {option} must be a whole number, {least} or more"
                raise ConfigurationError(msg, option)
        if self.depth > _MAX_DEPTH:
            msg = f"limits: depth must be at most {_MAX_DEPTH}, the most that OTLP can carry"
            raise ConfigurationError(msg, "depth")

    @cached_property
    def for_attributes(self) -> Limits:
        """The limits for attribute values, where ``attribute_text`` replaces a higher ``text``."""
        if self.attribute_text is None or self.attribute_text >= self.text:
            return self
        return replace(self, text=self.attribute_text, attribute_text=None)

    @cached_property
    def shortest(self) -> int:
        """The lower of the limits for a string in the body and for a string in an attribute."""
        return min(self.text, self.for_attributes.text)


DEFAULT_LIMITS: Final = Limits()
