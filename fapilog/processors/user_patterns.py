r"""Checks, at start, the regular expressions that users give for further secrets.

``re`` backtracks.  A pattern such as ``(a+)+$`` takes time that doubles with
every character, and no signal handler runs in that time.  Such patterns are
refused.  Other patterns may still take quadratic time, so they get a text only
in short pieces (see :func:`fapilog.processors.pieces.search_bounded`).

The check reads the parsed pattern.  A repeat without a small bound is called
wide here.  The check refuses a wide repeat inside another one if a text can be
divided between them in several ways, alternatives inside a wide repeat that can
begin with the same character, and two adjacent wide repeats of the same
characters if more must follow.
"""

from __future__ import annotations

import itertools
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fapilog.errors import ConfigurationError

if sys.version_info >= (3, 11):
    from re import _constants as op  # type: ignore[attr-defined,unused-ignore]
    from re import _parser as parser  # type: ignore[attr-defined,unused-ignore]
else:
    import sre_constants as op
    import sre_parse as parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: A repeat of more than this is wide.
_NARROW: Final = 64
#: Characters that represent all others of their kind.
_SAMPLE: Final = frozenset(map(chr, range(128))) | {"é", "Ä", "中", "\N{NO-BREAK SPACE}", "²"}
_REPEATS: Final = {op.MAX_REPEAT, op.MIN_REPEAT}

Chars = frozenset[str]
_NONE: Final[Chars] = frozenset()


def checked_patterns(option: str, patterns: Any) -> tuple[re.Pattern[str], ...]:
    """Return the compiled patterns.

    Args:
        option: the option's name, used in errors.
        patterns: regular expressions, as text or compiled.

    Raises:
        ConfigurationError: a pattern is not a regular expression for text, or
            can take exponential time.
    """
    if isinstance(patterns, (str, bytes, re.Pattern)):
        msg = f"{option} must be a list of regular expressions, not a single one"
        raise ConfigurationError(msg)
    return tuple(_checked(option, pattern) for pattern in patterns)


def _checked(option: str, pattern: Any) -> re.Pattern[str]:
    try:
        made: re.Pattern[Any] = re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        msg = f"{option}: {pattern!r} is not a regular expression: {error}"
        raise ConfigurationError(msg) from error
    if isinstance(made.pattern, bytes):
        msg = f"{option}: {pattern!r} is for bytes; give one for str, which also searches bytes"
        raise ConfigurationError(msg)
    tree: Any = parser.parse(made.pattern, made.flags & ~re.DEBUG)
    problem = next(_Check(made.flags).problems([*tree], _NONE, is_end=True), None)
    if problem is not None:
        msg = (
            f"{option}: {made.pattern!r} can take exponential time: {problem}; "
            "write it so that a text matches in one way only, or bound the repeats, as in {1,64}"
        )
        raise ConfigurationError(msg)
    return made


class _Check:
    """Finds parts of a pattern that make ``re`` backtrack exponentially.

    Args:
        flags: the flags of the compiled pattern.
    """

    def __init__(self, flags: int) -> None:
        self._flags = flags

    def problems(self, nodes: list[Any], follow: Chars, *, is_end: bool) -> Iterator[str]:
        """Yield the problems of a sequence.

        Args:
            nodes: the parsed sequence.
            follow: the characters that may come after the sequence, if it is
                inside a wide repeat; else empty.
            is_end: whether a match may end after the sequence.
        """
        for place, (kind, value) in enumerate(nodes):
            rest = nodes[place + 1 :]
            ends = is_end and self._is_nullable(rest)
            after = self._first(rest) | (follow if self._is_nullable(rest) else _NONE)
            if kind in _REPEATS:
                yield from self._in_repeat(value, rest, after if follow else _NONE, ends=ends)
            for inner in _parts(kind, value):
                if kind not in _REPEATS:
                    yield from self.problems(inner, after if follow else _NONE, is_end=ends)

    def _in_repeat(self, value: Any, rest: list[Any], after: Chars, *, ends: bool) -> Iterator[str]:
        least, most, body = value[0], value[1], list(value[2])
        if most - least <= _NARROW and most <= _NARROW:
            yield from self.problems(body, after, is_end=ends)
            return
        chars = self._first(body)
        if after & chars:
            yield "a repeat inside another one can share its characters with it"
        neighbour = self._wide_neighbour(rest)
        if neighbour is not None and not ends and neighbour & chars:
            yield "two adjacent repeats can share their characters"
        yield from self._alternatives(body)
        yield from self.problems(body, chars | after, is_end=False)

    def _alternatives(self, body: list[Any]) -> Iterator[str]:
        for kind, value in _flat(body):
            if kind is not op.BRANCH:
                continue
            seen: Chars = _NONE
            texts: list[str] = []
            for branch in value[1]:
                nodes = list(branch)
                if all(inner is op.LITERAL for inner, _ in nodes):
                    texts.append("".join(chr(code) for _, code in nodes))
                    continue
                first = self._first(nodes)
                if first & seen:
                    yield "alternatives inside a repeat can begin with the same character"
                seen |= first
            if seen & {text[:1] for text in texts} or _has_prefix(texts):
                yield "alternatives inside a repeat can begin with the same character"

    def _wide_neighbour(self, rest: list[Any]) -> Chars | None:
        """Return the characters of a wide repeat that can come next, or None."""
        for kind, value in rest:
            if kind is op.AT:
                continue
            if kind is op.SUBPATTERN:
                return self._wide_neighbour(list(value[-1]))
            if kind in _REPEATS:
                if value[1] > _NARROW:
                    found = self._first(list(value[2]))
                    # A wide repeat after which nothing must follow cannot fail.
                    return (
                        found
                        if not self._is_nullable(rest[rest.index((kind, value)) + 1 :])
                        else None
                    )
                if not value[0]:
                    continue
            return None
        return None

    def _first(self, nodes: list[Any]) -> Chars:
        """Return the characters with which a match of a sequence can begin."""
        found: Chars = _NONE
        for node in nodes:
            found |= self._first_of(*node)
            if not self._is_nullable([node]):
                break
        return found

    def _first_of(self, kind: Any, value: Any) -> Chars:
        if kind is op.LITERAL:
            return self._cased(frozenset(chr(value)))
        if kind is op.NOT_LITERAL:
            return _SAMPLE - {chr(value)}
        if kind is op.ANY:
            return _SAMPLE if self._flags & re.DOTALL else _SAMPLE - {"\n"}
        if kind is op.IN:
            return self._cased(_members(value))
        if kind is op.GROUPREF:
            return _SAMPLE
        parts = [self._first(part) for part in _parts(kind, value)]
        return frozenset[str]().union(*parts)

    def _cased(self, chars: Chars) -> Chars:
        if not self._flags & re.IGNORECASE:
            return chars
        return chars | {c.lower() for c in chars} | {c.upper() for c in chars}

    def _is_nullable(self, nodes: list[Any]) -> bool:
        """Whether a sequence matches the empty text."""
        for kind, value in nodes:
            if kind in {op.AT, op.ASSERT, op.ASSERT_NOT, op.GROUPREF}:
                continue
            if kind in _REPEATS or kind is getattr(op, "POSSESSIVE_REPEAT", None):
                if value[0] and not self._is_nullable(list(value[2])):
                    return False
                continue
            parts = list(_parts(kind, value))
            if not parts or not any(self._is_nullable(part) for part in parts):
                return False
        return True


def _parts(kind: Any, value: Any) -> Iterator[list[Any]]:
    """Yield the sequences inside a node."""
    if kind in _REPEATS or kind is getattr(op, "POSSESSIVE_REPEAT", None):
        yield list(value[2])
    elif kind is op.SUBPATTERN:
        yield list(value[-1])
    elif kind is getattr(op, "ATOMIC_GROUP", None):
        yield list(value)
    elif kind is op.BRANCH:
        yield from map(list, value[1])
    elif kind in {op.ASSERT, op.ASSERT_NOT}:
        yield list(value[1])
    elif kind is op.GROUPREF_EXISTS:
        yield list(value[1])
        yield list(value[2] or ())


def _flat(nodes: list[Any]) -> Iterator[Any]:
    """Yield the nodes of a sequence and of its groups."""
    for kind, value in nodes:
        yield kind, value
        if kind is op.SUBPATTERN:
            yield from _flat(list(value[-1]))


def _has_prefix(texts: list[str]) -> bool:
    """Whether one of the texts begins with another one, so that both can match."""
    texts = sorted(texts)
    return any(after.startswith(text) for text, after in itertools.pairwise(texts))


def _members(items: Iterable[Any]) -> Chars:
    """Return the characters of a set in brackets."""
    found: set[str] = set()
    negated = False
    for kind, value in items:
        if kind is op.NEGATE:
            negated = True
        elif kind is op.LITERAL:
            found.add(chr(value))
        elif kind is op.RANGE:
            found |= {c for c in _SAMPLE if value[0] <= ord(c) <= value[1]}
            found.add(chr(value[0]))
        elif kind is op.CATEGORY:
            found |= _category(str(value))
    return _SAMPLE - found if negated else frozenset(found)


@lru_cache(maxsize=16)
def _category(name: str) -> Chars:
    letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}[name.rpartition("_")[2]]
    found = {c for c in _SAMPLE if re.match(rf"\{letter}", c)}
    return _SAMPLE - found if "_NOT_" in name else frozenset(found)
