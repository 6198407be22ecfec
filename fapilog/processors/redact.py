"""Masks the secrets in a record before any sink receives the record.

Nearly all records contain no secret.  So :meth:`RedactProcessor.glance` first searches the
strings of many records together, which is fast.  If this search finds a possible secret, the
records are examined one by one.
"""

from __future__ import annotations

import copy
import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import Self

from fapilog.errors import ConfigurationError
from fapilog.processors.field_names import DEFAULT_FIELDS, FieldNames
from fapilog.processors.find_encoded import all_forms, mask_encoded, without_escapes
from fapilog.processors.find_inputs import (
    find_cut_inputs,
    find_inputs,
    find_members,
    may_hold_input,
)
from fapilog.processors.find_pairs import find_pairs, may_hold_pair
from fapilog.processors.find_shapes import RULES, may_hold_secret
from fapilog.processors.pieces import search_bounded
from fapilog.processors.user_patterns import checked_patterns
from fapilog.record import Scope
from fapilog.values import SCALARS, Limits, snapshot
from fapilog.values.normal import attribute_size, ordinary_size
from fapilog.values.plain import NotPlainError, measure
from fapilog.values.snapshots import plain_name
from fapilog.values.text import free_name, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fapilog.processors.find_pairs import Value
    from fapilog.processors.find_shapes import Span
    from fapilog.record import AnyValue, LogRecord
    from fapilog.settings import Settings

MASK: Final = "[REDACTED]"
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
#: Shorter values of secret fields are masked in their field only, not in other strings.
_SHORTEST: Final = 4
#: Very high limits for ``measure``, because ``_plain`` uses it only to check the types in a value.
_UNLIMITED: Final = Limits(depth=30, nodes=1 << 20, text=1 << 40)
#: The maximum total size, in bytes, of the strings that are searched together.  The limit is
#: needed because a search blocks all other threads.
_MOST_TOGETHER: Final = 1 << 19
_MAX_NAMES: Final = 4096
_MAX_NAME: Final = 128
# A dict such as {"name": "authorization", "value": "..."} contains the name and the value of a
# field.  ``_LABEL_KEYS`` are the possible keys of the name, ``_VALUE_KEYS`` those of the value.
_LABEL_KEYS: Final = frozenset({"name", "key", "header", "field"})
_VALUE_KEYS: Final = frozenset({"value", "Value", "VALUE", "values", "Values"})
# A key with one of these endings may have a list of field names as its value, as in {"required":
# ["password", "email"]}.  Such a list does not contain the secrets themselves.
_LIST_NAMES: Final = ("s", "required", "missing", "include", "exclude", "only", "loc")
_words: Final = re.compile(r"""[^\s"'=:,;&?/@(){}\[\]]{3,}""").findall
_plain_word: Final = re.compile("[a-z]+(?:_[a-z]+)*").fullmatch
# pydantic describes an invalid value as {"type": "...", "loc": ["body", "password"], "input":
# "..."}.  Its ``loc`` is the path to the value; ``input``, ``msg`` and ``ctx`` may contain the
# value.
_LOCATION: Final = "loc"
_INPUT_KEYS: Final = frozenset({"input", "msg", "ctx"})
_CLOSER_KEYS: Final = _VALUE_KEYS | {_LOCATION}


class RedactProcessor:
    """Masks secrets in all strings of a record.

    The strings are in the body, the attributes, the logger's name, version and schema URL, the
    event name and the severity text.

    The values of fields with secret names are masked at any depth, also in lists of pairs, in
    lists of ``{"name": ..., "value": ...}`` and in pydantic's errors.  In strings, including
    exception messages and stack traces, the processor masks credentials in URLs and headers,
    private keys, tokens and API keys, and values after secret names.  Only the secret part of a
    string is masked.  If the value of a secret field has at least four characters and is also a
    word in the body or in another attribute, it is masked there too: a message that was formatted
    with ``{password}`` contains the value, but not the name.  None and booleans are never masked.

    Does not block.  If it raises, which only a defect of fapilog can cause, the pipeline masks
    the whole record.  Only one worker thread may call it; any thread may read ``redacted`` and
    ``counts``.

    Args:
        fields: the names of secret fields, in any spelling that shows where each word begins;
            they replace :data:`~fapilog.processors.field_names.DEFAULT_FIELDS`.
        extra_fields: the names of secret fields in addition to ``fields``.
        patterns: regular expressions that match further secrets.  If a pattern has a group
            named ``secret``, only the group is masked, otherwise the whole match.  Every
            string is searched for each pattern.  In a long string, a pattern reads at least 512
            characters from the start of a match; a match that may be longer is masked up to the
            next space or line end.
        allow: the names of fields that are not masked because of their names; their values are
            still searched for secrets such as API keys.
        mask: the ASCII text that replaces a secret.

    Raises:
        ConfigurationError: an option is wrong, or a pattern can take exponential time.
    """

    def __init__(
        self,
        fields: Iterable[str] = DEFAULT_FIELDS,
        *,
        extra_fields: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        allow: Iterable[str] = (),
        mask: str = MASK,
    ) -> None:
        names = [*_names("fields", fields), *_names("extra_fields", extra_fields)]
        self._fields = FieldNames(names, _names("allow", allow))
        self._patterns = checked_patterns("patterns", patterns)
        if not (isinstance(mask, str) and mask and mask.isascii()):
            msg = "mask must be ASCII text and not empty"
            raise ConfigurationError(msg)
        self._mask = mask
        self._reset()

    def _reset(self) -> None:
        self._counts = dict.fromkeys(("field", "pair", *(rule.name for rule in RULES), "custom"), 0)
        # A cache of attribute names and keys of dicts that contain no secret and do not name a
        # secret field.  The value for each name is the number of bytes that an attribute of this
        # name adds to the size of a record, without the attribute's value.
        self._harmless: dict[str, int] = {}
        self._clear_names: set[str] = set()
        self._masked_scope = lru_cache(_MAX_NAMES)(self._mask_scope)

    def separate(self) -> Self:
        """Return a redactor with the same options and its own counts, for other threads.

        If several threads use it at the same time, some masked values may not be counted.

        :meta private:
        """
        other = copy.copy(self)
        other._reset()  # noqa: SLF001 - an object of this class
        return other

    @property
    def redacted(self) -> int:
        """The number of values that have been masked."""
        return sum(self._counts.values())

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of values that have been masked, by the name of the rule that found them.

        The names are ``field`` for values that are secret because of the name of their
        attribute, key or command-line option, ``pair`` for values after a name in a string,
        ``custom`` for matches of the argument ``patterns``, and the names of the rules in
        ``fapilog.processors.find_shapes``, such as ``url``.
        """
        return self._counts.copy()

    def __call__(self, record: LogRecord) -> LogRecord:
        """Mask the secrets in ``record``, in place, and return it."""
        record.event_name = self._name(record.event_name)
        record.severity_text = self._name(record.severity_text)
        record.scope = self._masked_scope(record.scope)
        body = record.body
        clear = not self._patterns
        texts: list[str] = []
        if type(body) is str:
            texts.append(body)
        elif body is not None:
            clear = False
        harmless = self._harmless
        for name, value in record.attributes.items():
            kind = type(value)
            if kind is str:
                texts.append(value)
            elif kind not in _NUMBERS:
                clear = False
            if name not in harmless:
                clear = False
        if not clear or self._is_suspect("\n".join(texts)):
            self._look_closer(record)
        return record

    def glance(
        self, records: Sequence[LogRecord], headers: Sequence[int | None], limits: Limits
    ) -> None:
        """Set the ``size`` of records that contain no secret and exceed no limit.

        The value is the size that ``fapilog.values.normalise`` would set.  If the size of a
        record stays 0, the record must be examined separately.  The strings of all records are
        searched together, which is fast.  All sizes stay 0 if one of these strings may contain a
        secret, or if the strings are too long for one search.  Never raises.

        :meta private:

        Args:
            records: the records, whose size is 0.
            headers: for each record, the number of bytes of text outside the body and the
                attributes, or -1 if a field is invalid.  None means that a fapilog logger made
                the record without an event name.  Then only the scope is searched for secrets,
                not the event name and the severity text.
            limits: the size limits of one record.
        """
        if self._patterns:
            return
        texts: set[str] = set()
        sizes: list[int] = []
        clear_scope: Scope | None = None
        try:
            for record, header in zip(records, headers, strict=True):
                scope = record.scope
                if (scope is not clear_scope and self._masked_scope(scope) is not scope) or (
                    header is not None and (header < 0 or not self._has_clear_header(record))
                ):
                    sizes.append(0)
                    continue
                clear_scope = scope
                try:
                    size = ordinary_size(record, limits, self._harmless, texts, flat=True)
                except Exception:  # noqa: BLE001 - the closer look finds the fault
                    size = 0
                sizes.append(size + header if size and header else size)
            if sum(sizes) > _MOST_TOGETHER or self._is_suspect("\n".join(texts)):
                return
        except Exception:  # noqa: BLE001 - no memory: each record gets a closer look
            return
        for record, size in zip(records, sizes, strict=True):
            record.size = size

    def redact_mapping(self, mapping: Mapping[str, AnyValue]) -> dict[str, AnyValue]:
        """Return a copy of the attributes of a resource or a scope, with masked secrets."""
        return self._mapping(_plain_attributes(mapping))

    def mask_message(self, message: str, values: Iterable[object]) -> str:
        """Return the message of an error with its secrets masked.

        The masked values are not added to ``counts``.

        :meta private:

        Args:
            message: the message of any error.
            values: the body and the attributes of the record that caused the error.  If a
                secret in these values also occurs in the message, it is masked there.
        """
        counts = self._counts.copy()
        plain = [_plain(value) for value in values]
        secrets = set(_hidden(plain, [self._value(value) for value in plain])) - {""}
        for secret in sorted(secrets, key=len, reverse=True):
            message = message.replace(secret, self._mask)
        message = self._text(message)
        self._counts.update(counts)
        return message

    def _has_clear_header(self, record: LogRecord) -> bool:
        return self._is_clear_name(record.event_name) and self._is_clear_name(record.severity_text)

    def _is_clear_name(self, name: str) -> bool:
        """Whether ``name`` contains no secret.

        Names without a secret are cached, because the same names occur often.
        """
        if name in self._clear_names:
            return True
        if self._patterns or self._is_suspect(name):
            return False
        if len(self._clear_names) >= _MAX_NAMES:
            self._clear_names.clear()
        if len(name) <= _MAX_NAME:
            self._clear_names.add(name)
        return True

    def _name(self, name: Any) -> str:
        text = name if type(name) is str else plain_name(name)  # the name may be an Enum member
        return text if self._is_clear_name(text) else self._text(text)

    def _mask_scope(self, scope: Scope) -> Scope:
        """Return ``scope``, or a masked copy if its name, version or URL has a secret."""
        texts = [scope.name, scope.version, scope.schema_url]
        name, version, url = masked = [self._name(text) for text in texts]
        return scope if masked == texts else Scope(name, version, url, scope.attributes)

    def _look_closer(self, record: LogRecord) -> None:
        record.body = _plain(record.body)
        record.attributes = _plain_attributes(record.attributes)
        if self._patterns or not self._is_clear(record.body, record.attributes):
            before = record.attributes
            record.body = self._value(record.body)
            record.attributes = self._mapping(before)
            secrets = set(_secret_values(before, record.attributes, self._mask))
            if secrets:
                self._mask_everywhere(record, sorted(secrets, key=len, reverse=True))

    def _mask_everywhere(self, record: LogRecord, secrets: Sequence[str]) -> None:
        """Mask ``secrets`` as whole words in the body and in the attributes that are strings."""
        for secret in secrets:
            if type(record.body) is str:
                record.body = self._mask_spans(record.body, _spans(record.body, secret), "field")
            for name, value in record.attributes.items():
                if type(value) is str:
                    spans = _spans(value, secret)
                    record.attributes[name] = self._mask_spans(value, spans, "field")

    def _is_clear(self, *values: AnyValue) -> bool:
        """Return whether ``values`` contain no secret.  Searches all their strings together."""
        texts: list[str] = []
        rest: list[Any] = [*values]
        while rest:
            value = rest.pop()
            kind = type(value)
            if kind is str:
                texts.append(value)
            elif kind is bytes:
                texts.append(value.decode("latin-1"))
            elif kind is dict:
                if not _CLOSER_KEYS.isdisjoint(value) or not self._are_harmless(value):
                    return False
                rest += value.values()
            elif kind is list:
                if self._is_secret_pair(value) or any(map(self._is_secret_option, value)):
                    return False
                rest += value
        return not self._is_suspect("\n".join(texts))

    def _is_suspect(self, text: str) -> bool:
        text = all_forms(text)
        return self._may_hold(text, text.lower())

    def _may_hold(self, text: str, lowered: str) -> bool:
        return may_hold_secret(text, lowered) or (
            may_hold_pair(text) and (self._fields.may_occur_in(lowered) or may_hold_input(lowered))
        )

    def _are_harmless(self, names: Iterable[str]) -> bool:
        """Whether each name contains no secret and is not the name of a secret field."""
        harmless = self._harmless
        for name in names:
            if name in harmless:
                continue
            if self._fields.is_secret(name) or self._is_suspect(name):
                return False
            if len(harmless) >= _MAX_NAMES:
                harmless.clear()
            if len(name) <= _MAX_NAME:
                with suppress(NotPlainError):
                    harmless[name] = attribute_size(name)
        return True

    def _is_secret_pair(self, value: list[Any]) -> bool:
        return len(value) == 2 and self._is_secret_name(value[0])  # noqa: PLR2004 - a name and its value

    def _is_secret_option(self, item: object) -> bool:
        return (
            type(item) is str and item[:1] == "-" and "=" not in item and self._is_secret_name(item)
        )

    def _is_secret_name(self, name: object) -> bool:
        if type(name) is bytes:
            name = name.decode("latin-1")
        return type(name) is str and self._fields.is_secret(name)

    def _is_secret_location(self, location: object) -> bool:
        """Whether ``location``, pydantic's path to a value, contains the name of a secret."""
        if type(location) is str:
            return self._fields.is_secret_path(location)
        return type(location) is list and any(map(self._is_secret_name, location))

    # The methods below return masked copies, because several records may share the original
    # value.

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is bytes:
            return self._text(value.decode("latin-1")).encode("latin-1")
        if kind is dict:
            return self._mapping(value)
        if kind is list:
            if self._is_secret_pair(value):
                return [value[0], self._masked(value[1])]
            return self._list(value)
        return value

    def _list(self, items: list[Any]) -> list[Any]:
        """Mask secrets in ``items``, and the item after an option such as ``--password``."""
        masked: list[Any] = []
        named = False
        for item in items:
            is_value = named and type(item) not in (dict, list)
            named = not is_value and self._is_secret_option(item)
            masked.append(self._masked(item) if is_value else self._value(item))
        return masked

    def _mapping(self, mapping: Mapping[str, AnyValue]) -> dict[str, AnyValue]:
        is_labelled = any(
            name.lower() in _LABEL_KEYS and self._is_secret_name(label)
            for name, label in mapping.items()
        )
        named = _VALUE_KEYS if is_labelled else frozenset()
        if "type" in mapping and self._is_secret_location(mapping.get(_LOCATION)):
            named |= _INPUT_KEYS
        masked: dict[str, AnyValue] = {}
        for name, value in mapping.items():
            secret = self._fields.is_secret(name) or name in named
            is_names = _is_names(name, value)
            mask: Any = self._masked if secret else self._list if is_names else self._value
            masked[free_name(self._text(name), masked)] = mask(value)
        return masked

    def _masked(self, value: AnyValue) -> AnyValue:
        if value is None or isinstance(value, bool) or value == self._mask:
            return value
        self._counts["field"] += 1
        return self._mask

    def _text(self, text: str) -> str:
        if self._is_suspect(text):
            text = self._search(text)
            plain = without_escapes(text)
            if plain != text and (masked := self._search(plain)) != plain:
                text = masked
            text = mask_encoded(text, self._search, self._mask)
        for pattern in self._patterns:
            group = "secret" if "secret" in pattern.groupindex else 0
            text = self._mask_spans(text, search_bounded(pattern, text, group), "custom")
        return text

    def _search(self, text: str) -> str:
        lowered = text.lower()
        if not self._may_hold(text, lowered):
            return text
        for rule in RULES:
            text = self._mask_spans(text, rule.find(text, lowered), rule.name)
        is_secret = self._fields.is_secret_path
        text = self._mask_spans(text, find_inputs(text, is_secret), "pair")
        text = self._mask_spans(text, find_cut_inputs(text), "pair")
        text = self._mask_spans(text, find_members(text, is_secret), "pair")
        return self._mask_spans(text, find_pairs(text, self._fields.is_secret), "pair")

    def _mask_spans(self, text: str, spans: Iterable[Span | Value], rule: str) -> str:
        parts: list[str] = []
        last = count = 0
        for start, end, *quote in spans:
            if start < end and text[start:end] != self._mask:
                parts += (text[last:start], *quote, self._mask, *quote)
                last = end
                count += 1
        self._counts[rule] += count
        return "".join((*parts, text[last:])) if parts else text


def redactor_of(settings: Settings) -> RedactProcessor | None:
    """Return the redactor that the options configure, or None if redaction is disabled."""
    if not settings.redact:
        return None
    return RedactProcessor(extra_fields=settings.redact_fields, allow=settings.redact_allow)


def mask_record(record: LogRecord, reason: str) -> None:
    """Replace the body and every attribute value of a record, in place.  Never raises.

    Used after a processor has raised an exception, because the record may still contain
    secrets.

    Args:
        record: the record.
        reason: the text of the attribute ``fapilog.masked``; it must not contain a value of the
            record.
    """
    record.body = MASK
    names = record.attributes if isinstance(record.attributes, dict) else ()
    record.attributes = {**dict.fromkeys(names, MASK), "fapilog.masked": reason}


def _hidden(value: Any, masked: Any) -> Iterator[str]:
    """Yield each string in ``value`` that contains a secret, and the words masked in it.

    ``masked`` is the copy of ``value`` in which the secrets are masked.
    """
    kind = type(value)
    if kind is type(masked) and kind in {dict, list}:
        both = (value.values(), masked.values()) if kind is dict else (value, masked)
        for one, other in zip(*both, strict=False):
            yield from _hidden(one, other)
    elif kind in {dict, list}:
        for one in value.values() if kind is dict else value:
            yield from _hidden(one, None)
    elif value != masked:
        text = value.decode("latin-1") if kind is bytes else str(value)
        yield text
        yield repr(text)[1:-1]  # an error message may quote the repr() of the string
        if isinstance(masked, str):
            yield from set(_words(text)) - set(_words(masked))


def _secret_values(value: Any, masked: Any, mask: str) -> Iterator[str]:
    """Yield the strings and numbers in ``value`` that are ``mask`` in its copy ``masked``.

    Yields no value of fewer than four characters, because it may be part of ordinary text.
    """
    kind = type(value)
    if kind in {dict, list}:
        items = value.values() if kind is dict else value
        copies = masked.values() if type(masked) is dict else masked
        whole = masked == mask
        for item, copy in zip(items, [mask] * len(value) if whole else copies, strict=False):
            yield from _secret_values(item, copy, mask)
    elif masked == mask and value is not None and kind is not bool:
        text = value.decode("latin-1") if kind is bytes else str(value)
        if len(text) >= _SHORTEST and text != mask:
            yield text


def _spans(text: str, word: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each place where ``text`` contains ``word`` as a word."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        around = text[max(start - 1, 0) : start] + text[end : end + 1]
        if not any(one.isalnum() or one == "_" for one in around):
            yield start, end
        start = text.find(word, end)


def _is_names(name: str, value: Any) -> bool:
    """Whether ``value`` is a list of field names, as in ``{"required": ["password"]}``."""
    return (
        type(value) is list
        and name.lower().endswith(_LIST_NAMES)
        and all(type(item) is str and _plain_word(item) for item in value)
    )


def _plain(value: Any) -> AnyValue:
    """Return ``value`` if it contains only built-in types, otherwise a copy that does."""
    if type(value) in SCALARS:
        return value  # type: ignore[no-any-return]
    try:
        measure(value, _UNLIMITED)
    except NotPlainError:
        return snapshot(value)
    return value  # type: ignore[no-any-return]


def _plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, AnyValue]:
    plain: dict[str, AnyValue] = {}
    for name, value in attributes.items():
        text = name if type(name) is str else name_of(snapshot(name), plain)
        plain[text] = _plain(value)
    return plain


def _names(option: str, names: Any) -> list[str]:
    listed = [] if isinstance(names, (str, bytes)) else list(names)
    if isinstance(names, (str, bytes)) or not all(isinstance(name, str) for name in listed):
        msg = f"{option} must be a list of field names, such as ['password', 'api_key']"
        raise ConfigurationError(msg)
    return listed
