"""The bounds of one record, and the types that need no snapshot.

A record is bounded when it is created, so the number of records also bounds the
memory of the queue and the batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from fapilog.errors import ConfigurationError

#: Types that need no snapshot, because their values cannot change.
SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})

#: Protobuf parsers accept 100 nested messages: 6 enclose the attributes of an OTLP
#: request, and each level of a value takes 3.
_MAX_DEPTH: Final = 30
_LEAST: Final = {"depth": 1, "nodes": 1, "record": 4096}


@dataclass(frozen=True)
class Limits:
    """The bounds of one record.  Values that exceed them are truncated and marked.

    Attributes:
        depth: the number of levels of nested containers, 1 to 30.
        nodes: the total number of values in the containers of the body or of
            one attribute, at least 1.
        text: the number of characters in one string, or bytes in one byte string.
        record: the number of UTF-8 bytes in all texts of a record, at least
            4096.  Each value in a container adds 8, and each attribute adds 16.
        attributes: the number of attributes of a record; the default is that of
            the OpenTelemetry specification.
        attribute_text: a lower limit for each text in the values of attributes; None
            if only the limit ``text`` applies.
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
        """The limits for the values of attributes."""
        if self.attribute_text is None or self.attribute_text >= self.text:
            return self
        return replace(self, text=self.attribute_text, attribute_text=None)

    @cached_property
    def shortest(self) -> int:
        """The lower of the two text limits, of the body and of attributes."""
        return min(self.text, self.for_attributes.text)


DEFAULT_LIMITS: Final = Limits()
