r"""Rejects users' regular expressions that can take exponential time.

The module ``re`` uses backtracking.  For a pattern such as ``(a+)+$``, every additional
character of the text can double the time, and no signal handler runs during that time.

The class ``_Check`` reads the parsed pattern and estimates in how many ways it can match the
same text:

- A repeat such as ``a*`` has one way per possible number of repetitions, if the pattern after
  it can begin with the same characters.
- The ways of alternatives such as ``a|ab`` are added, if the alternatives can begin with the
  same characters.
- If a group is repeated, its ways are multiplied for each repetition.

A pattern with too many ways is rejected.  Two adjacent repeats of the same characters, such as
``a*a*``, are also rejected if both can match many times and the pattern after them can fail.
"""

from __future__ import annotations

import itertools
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from fapilog.errors import ConfigurationError

if sys.version_info >= (3, 11):
    from re import _compiler as compiler  # type: ignore[attr-defined,unused-ignore]
    from re import _constants as op  # type: ignore[attr-defined,unused-ignore]
    from re import _parser as parser  # type: ignore[attr-defined,unused-ignore]
else:
    import sre_compile as compiler
    import sre_constants as op
    import sre_parse as parser

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A repeat, such as ``a*``, is called wide if it can match more than 64 times.  It then counts as
#: a repeat of at most 64 times.
_WIDE: Final = 64
#: The maximum number of ways in which a pattern may match the same text.  Two
#: adjacent repeats, each with ``_WIDE`` possible lengths, have this number of ways.
_MOST_WAYS: Final = _WIDE * _WIDE
#: The characters with which ``_Check`` tests a pattern: all of ASCII, and examples of other
#: letters, spaces and digits.
_SAMPLE: Final = frozenset(map(chr, range(128))) | {"é", "Ä", "中", "\N{NO-BREAK SPACE}", "²"}
_REPEATS: Final = {op.MAX_REPEAT, op.MIN_REPEAT}
_CHARACTERS: Final = {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN}

Chars = frozenset[str]
_NONE: Final[Chars] = frozenset()


def checked_patterns(option: str, patterns: Any) -> tuple[re.Pattern[str], ...]:
    """Return the compiled patterns.

    Raises:
        ConfigurationError: a pattern is not a regular expression for ``str``, or can take
            exponential time.  The message contains ``option``, the name of the option.
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
        msg = f"{option}: {pattern!r} is for bytes; use one for str, which also searches bytes"
        raise ConfigurationError(msg)
    tree: Any = parser.parse(made.pattern, made.flags & ~re.DEBUG)
    if _Check(tree).ways([*tree]) > _MOST_WAYS:
        msg = (
            f"{option}: {made.pattern!r} can take exponential time, because its repeats or "
            "alternatives can match the same text in many ways; write it so that a text matches "
            "in one way only: separate repeats by characters that they cannot match"
        )
        raise ConfigurationError(msg)
    return made


class _Check:
    """Estimates in how many ways a pattern can match the same text."""

    def __init__(self, tree: Any) -> None:
        self._state = tree.state
        # The pattern is tested with the characters in ``_SAMPLE``, and with all characters that
        # occur in the pattern.  The repr of the parsed pattern contains their codes.
        codes = map(int, re.findall(r"\d+", repr(tree)))
        self._sample = _SAMPLE.union(chr(code) for code in codes if code <= sys.maxunicode)

    def ways(self, nodes: list[Any], follow: Chars = _NONE, *, fails: bool = False) -> int:
        """Return the number of ways in which ``nodes`` can match the same text.

        Counting stops above ``_MOST_WAYS``.

        Args:
            nodes: the parsed elements of a sequence in the pattern.
            follow: the characters that may come after the sequence.
            fails: whether the match can fail after the sequence, so that ``re`` tries all ways.
        """
        ways = 1
        nodes = [*_flat(nodes)]
        for place, (kind, value) in enumerate(nodes):
            rest = nodes[place + 1 :]
            after = self._first(rest) | (follow if self._is_nullable(rest) else _NONE)
            may_fail = fails or _can_fail(rest)
            if kind in _REPEATS:
                ways *= self._ways_of_repeat(value, rest, after, fails=may_fail)
            elif kind is op.BRANCH:
                ways *= self._ways_of_branch(list(map(list, value[1])), after, fails=may_fail)
            else:
                for part in _parts(value):
                    ways *= self.ways(part, after, fails=True)
            if ways > _MOST_WAYS:
                break
        return ways

    def _ways_of_repeat(self, value: Any, rest: list[Any], after: Chars, *, fails: bool) -> int:
        least, most, body = value[0], value[1], list(value[2])
        chars = self._first(body)
        shares = fails and bool(chars & after)
        if shares and most > _WIDE and (self._wide_neighbour(rest) or _NONE) & chars:
            return _MOST_WAYS + 1
        again = most > 1
        inner = self.ways(body, after | chars if again else after, fails=fails or again)
        # Each number of repetitions is a separate way if the pattern after the repeat can begin
        # with the same characters.
        lengths = min(most - least + 1, _WIDE) if shares else 1
        return int(min(inner, _MOST_WAYS + 1) ** min(most, _WIDE) * lengths)

    def _ways_of_branch(self, branches: list[list[Any]], after: Chars, *, fails: bool) -> int:
        ways = [self.ways(branch, after, fails=fails) for branch in branches]
        return sum(ways) if fails and self._can_overlap(branches, after) else max(ways)

    def _can_overlap(self, branches: list[list[Any]], after: Chars) -> bool:
        """Whether two of ``branches`` can match the beginning of the same text."""
        seen = starts = _NONE
        texts: list[str] = []
        for nodes in branches:
            first = self._first(nodes)
            if all(kind is op.LITERAL for kind, _ in nodes):
                texts.append("".join(chr(code) for _, code in nodes))
                starts |= first
                continue
            if self._is_nullable(nodes):
                first |= after
            if first & seen:
                return True
            seen |= first
        # Two literal alternatives can match the same text if the shorter is a prefix of the
        # longer.
        pairs = itertools.pairwise(sorted(texts))
        return bool(seen & starts) or any(longer.startswith(text) for text, longer in pairs)

    def _wide_neighbour(self, rest: list[Any]) -> Chars | None:
        """Return the possible first characters of a wide repeat at the start of ``rest``, or None.

        A repeat is wide if it can match more than ``_WIDE`` times.  Optional nodes may precede
        it.
        """
        for place, (kind, value) in enumerate(rest):
            if kind in _REPEATS and value[1] > _WIDE:
                # After this repeat, the match can fail only if a later node is not optional.
                return self._first(list(value[2])) if _can_fail(rest[place + 1 :]) else None
            if not self._is_nullable([(kind, value)]):
                return None
        return None

    def _first(self, nodes: list[Any]) -> Chars:
        """Return the characters with which a match of ``nodes`` can begin."""
        found: Chars = _NONE
        for node in nodes:
            found |= self._first_of(*node)
            if not self._is_nullable([node]):
                break
        return found

    def _first_of(self, kind: Any, value: Any) -> Chars:
        if kind in _CHARACTERS:
            character = compiler.compile(parser.SubPattern(self._state, [(kind, value)]))
            return frozenset(filter(character.match, self._sample))
        if kind is op.GROUPREF:
            return self._sample
        return _NONE.union(*(self._first(part) for part in _parts(value)))

    def _is_nullable(self, nodes: list[Any]) -> bool:
        """Whether ``nodes`` can match the empty string."""
        least, _ = parser.SubPattern(self._state, nodes).getwidth()
        return bool(least == 0)


def _parts(value: Any) -> Iterator[list[Any]]:
    """Yield the sequences of nodes inside ``value``, which is the second item of a parsed node."""
    if isinstance(value, parser.SubPattern):
        yield value.data
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _parts(part)


def _flat(nodes: list[Any]) -> Iterator[Any]:
    """Yield ``nodes``, with each group replaced by the nodes inside the group."""
    for kind, value in nodes:
        if kind is op.SUBPATTERN:
            yield from _flat(list(value[-1]))
        else:
            yield kind, value


def _can_fail(nodes: list[Any]) -> bool:
    """Whether ``nodes`` can fail to match, because at least one node is not an optional repeat."""
    return any(kind not in _REPEATS or value[0] for kind, value in nodes)
