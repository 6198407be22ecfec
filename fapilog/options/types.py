"""Defines the pydantic types of options.

Users may write a list as ``a, b`` and a mapping as ``a=1, b=2``, because JSON is hard to write
in an environment variable.  JSON works too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
)

from fapilog.severity import OFF, Severity, parse_severity

_EVERYTHING: Final = 0o777


class OptionGroup(BaseModel):
    """Base class of a group of options, which is a table in a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _decoded(value: object) -> object:
    """Parse a string that is a JSON array or a JSON object.  Return other values unchanged."""
    if isinstance(value, str) and value.strip()[:1] in {"[", "{"}:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _split(value: object) -> object:
    """Convert ``"a, b"`` to ``["a", "b"]``.  Return values other than str unchanged."""
    value = _decoded(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _pairs(value: object) -> object:
    """Convert ``"a=1, b=2"`` to ``{"a": "1", "b": "2"}``.  Flatten mappings to dotted names."""
    value = _decoded(value)
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not equals for _, equals, _ in parts):
            msg = "use name=value pairs separated by commas"
            raise ValueError(msg)
        return {name.strip(): text.strip() for name, _, text in parts}
    return dict(_flattened(value)) if isinstance(value, Mapping) else value


def _flattened(table: Mapping[Any, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted name and the value of each item in nested mappings.

    TOML parses the key ``app.db`` as the key ``db`` in a table ``app``, but in
    fapilog's options, ``app.db`` is a single name.
    """
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _names_or_pairs(value: object) -> object:
    """Convert ``"a, b=1"`` to ``["a", "b=1"]``.  Flatten mappings to dotted names."""
    value = _decoded(value)
    return dict(_flattened(value)) if isinstance(value, Mapping) else _split(value)


def _permissions(value: object) -> object:
    """Return file permissions as a number.  The string ``"640"`` is octal, as for chmod."""
    try:
        number = int(value.strip(), 8) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _EVERYTHING:
        msg = "use octal digits from 0 to 0777"
        raise ValueError(msg)
    return number


def _named_severities(value: dict[str, Severity]) -> dict[str, Severity]:
    """Convert the keys, which are names of severities, to upper case.

    Raise a ValueError if a severity is ``OFF``.
    """
    for name, severity in value.items():
        if severity == OFF:
            msg = f"{name}: off is not the severity of a record"
            raise ValueError(msg)
    return {name.upper(): severity for name, severity in value.items()}


Level = Annotated[Severity, BeforeValidator(parse_severity)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
NamesOrPairs = Annotated[tuple[str, ...] | dict[str, str], BeforeValidator(_names_or_pairs)]
Pairs = Annotated[dict[str, Any], BeforeValidator(_pairs)]
SecretPairs = Annotated[dict[str, SecretStr], BeforeValidator(_pairs)]
Levels = Annotated[dict[str, Level], BeforeValidator(_pairs)]
Severities = Annotated[
    dict[str, Level],
    BeforeValidator(_pairs),
    AfterValidator(_named_severities),
]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, le=86_400)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
#: A number of bytes above 0, which users may also write as ``10MB`` or ``64MiB``.
Bytes = Annotated[ByteSize, Field(gt=0)]
#: The permission bits of a file, which users may also write as octal text, such as ``"640"``.
Mode = Annotated[int, BeforeValidator(_permissions)]
