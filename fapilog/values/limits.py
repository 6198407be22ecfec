"""The bounds of one record, and the types that need no snapshot.

A record is bounded at its creation, so that the queue, batches and the spool are
bounded by the number of their records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from fapilog.errors import ConfigurationError

#: Types that need no snapshot, because their values cannot change.
SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})

#: OTLP can carry 31 levels: parsers of protobuf accept 100 nested messages, 6
#: are around the attributes, and every level takes 3.
_MAX_DEPTH: Final = 30
_LEAST: Final = {"depth": 1, "nodes": 1, "record": 4096}


@dataclass(frozen=True)
class Limits:
    """The bounds of one record.  Values beyond them are cut and marked.

    Attributes:
        depth: levels of nested containers, 1 to 30.
        nodes: total number of values in the containers of the body or of one
            attribute, at least 1.
        text: characters of one string, or bytes of one byte string.
        record: UTF-8 bytes of all texts of a record, at least 4096.  A value
            in a container counts 8 more, an attribute 16 more.
        attributes: attributes of a record; the default is the OpenTelemetry
            specification's.
        attribute_text: the limit ``text`` for the values of attributes, but not
            for the body; None for the same limit.
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
        """The limits of the values of attributes."""
        if self.attribute_text is None or self.attribute_text >= self.text:
            return self
        return replace(self, text=self.attribute_text, attribute_text=None)

    @cached_property
    def shortest(self) -> int:
        """The largest number of characters that every text of a record may have."""
        return min(self.text, self.for_attributes.text)


DEFAULT_LIMITS: Final = Limits()
