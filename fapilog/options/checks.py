"""Defines rules for the values of arguments, and raises errors about wrong values.

``Settings`` checks its options with pydantic.  Classes such as sinks and routes, and the
integrations, check their arguments with a :class:`Rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from sys import float_info
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fapilog.errors import ConfigurationError
from fapilog.severity import parse_severity

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path


@dataclass(frozen=True)
class Rule:
    """A test for the value of an option.

    The rule ``a | b`` allows every value that the rule ``a`` or the rule ``b`` allows.

    Attributes:
        accepts: the function that returns True for an allowed value.
        allowed: the description of the allowed values, as it appears in errors.
    """

    accepts: Callable[[Any], bool]
    allowed: str

    def __or__(self, other: Rule) -> Rule:
        first, second = self.accepts, other.accepts
        words = f"{self.allowed}{',' if ',' in self.allowed else ''} or {other.allowed}"
        return Rule(lambda value: first(value) or second(value), words)

    def check(self, option: str, value: object, owner: str = "") -> None:
        """Check a value.  Errors name the ``option`` and its ``owner``, such as ``sink 'file'``.

        Raises:
            ConfigurationError: the value is not allowed.  The error shows the value.
        """
        if not self.accepts(value):
            refuse(option, value, f"use {self.allowed}", owner)


def check_all(rules: Mapping[str, Rule], values: Mapping[str, Any], owner: str = "") -> None:
    """Check the value of every option in ``rules``.  Errors name the ``owner`` of the options.

    Raises:
        ConfigurationError: a value is not allowed.
    """
    for option, rule in rules.items():
        rule.check(option, values[option], owner)


def refuse(option: str, value: object, fix: str, owner: str = "") -> NoReturn:
    """Raise a ConfigurationError about a wrong value.

    Args:
        option: the name of the option.
        value: the wrong value, which the error shows.
        fix: the instruction in the error, such as ``use a number``.
        owner: the owner of the option, such as ``sink 'file'``, or "".
    """
    of = f" of {owner}" if owner else ""
    msg = f"{option}={value!r}{of}: {fix}"
    raise ConfigurationError(msg, option)


def severity(option: str, value: Any, owner: str = "") -> int:
    """Return the severity number of a value that :func:`parse_severity` accepts.

    Errors name the ``option`` and its ``owner``.

    Raises:
        ConfigurationError: the value is not a severity.
    """
    try:
        return int(parse_severity(value))
    except ValueError as error:
        msg = f"{option} of {owner}: {error}" if owner else f"{option}: {error}"
        raise ConfigurationError(msg, option) from None


def whole(least: int = 0, most: int | None = None, unit: str = "") -> Rule:
    """Return a rule for whole numbers from ``least`` to ``most``.

    If ``most`` is None, there is no upper limit.  ``unit``, such as ``bytes``, is for messages.
    """
    top = inf if most is None else most
    limits = f", {least} or more" if most is None else f" from {least} to {most}"
    of = f" of {unit}" if unit else ""
    return Rule(
        lambda value: isinstance(value, int) and type(value) is not bool and least <= value <= top,
        f"a whole number{of}{limits if least or most else ''}",
    )


def one_of(*choices: object) -> Rule:
    """Return a rule that allows only the values in ``choices``."""
    *others, last = map(repr, choices)
    words = f"{', '.join(others)} or {last}" if others else last
    kinds = tuple(map(type, choices))  # comparing other types, such as arrays, may raise
    return Rule(lambda value: isinstance(value, kinds) and value in choices, words)


def instance_of(kind: type, words: str) -> Rule:
    """Return a rule that allows instances of ``kind``, which errors describe as ``words``."""
    return Rule(lambda value: isinstance(value, kind), words)


def absolute_path(option: str, path: str | PathLike[str], owner: str = "") -> Path:
    """Return ``path`` as an absolute path, with ``~`` replaced by the home directory.

    Errors name the ``option`` and its ``owner``.

    Raises:
        ConfigurationError: the home directory or the working directory does not exist.
    """
    from pathlib import Path  # noqa: PLC0415 - `import fapilog` does not need it

    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        refuse(option, str(path), "the home directory is not known; use an absolute path", owner)
    except OSError as error:
        why = f"the working directory is not usable ({error.strerror}); use an absolute path"
        refuse(option, str(path), why, owner)


def is_number(value: object) -> bool:
    """Return whether ``value`` is an int or a float, but not a bool or NaN."""
    return isinstance(value, (int, float)) and type(value) is not bool and value == value  # noqa: PLR0124 - False for NaN


def names(option: str, value: Any, example: str) -> tuple[str, ...]:
    """Return the names in ``value``, which must be a list or another iterable of str.

    Raises:
        ConfigurationError: ``value`` is not an iterable of str.  The error shows ``example``, a
            correct list.
    """
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    listed = tuple(value) if is_list else ()
    if not is_list or not all(isinstance(name, str) for name in listed):
        refuse(option, value, f"use a list of names, such as {example}")
    return listed


NONE: Final = Rule(lambda value: value is None, "None")
TRUE_OR_FALSE: Final = instance_of(bool, "True or False")
#: A rule that allows a number of seconds above 0, including infinity.
SECONDS: Final = Rule(
    lambda value: is_number(value) and value > 0, "a number of seconds, more than 0"
)
FINITE_SECONDS: Final = Rule(
    lambda value: is_number(value) and 0 < value <= float_info.max,
    "a finite number of seconds, more than 0",
)
