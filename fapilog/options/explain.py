"""Creates the messages about wrong options, without their values, which may be secret."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from fapilog.errors import ConfigurationError
from fapilog.options.schema import (
    field_at,
    inside,
    is_group,
    kind_at,
    option_names,
    path_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    from fapilog.options.sources import Origins, Source

# The minimum similarity, from 0 to 1 as in difflib, of a misspelled name to a suggested option.
_SIMILAR: Final = 0.6
_VERY_SIMILAR: Final = 0.85
_GROUP_ERRORS: Final = ("model_type", "model_attributes_type", "dict_type")
# Templates that describe the allowed values, by pydantic's error type.  In a template, ``.15g``
# formats 0.0 as ``0``.
_ALLOWED: Final[Mapping[str, str]] = {
    "literal_error": "{expected}",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:.15g}",
    "greater_than_equal": "{ge:.15g} or more",
    "less_than": "less than {lt:.15g}",
    "less_than_equal": "{le:.15g} or less",
    "byte_size": "bytes, such as 10MB or 64MiB",
    "byte_size_unit": "bytes, such as 10MB or 64MiB",
    "path_type": "a path",
    "string_type": "text",
    "tuple_type": "a list of names",
    "dict_type": "a table of names and values",
}


def explain(error: ValidationError, model: type[BaseModel], origins: Origins) -> ConfigurationError:
    """Return an error with one line per wrong option.

    The line says where the user set the option, how to fix it, and what the option does.

    Args:
        error: the error that pydantic raised.
        model: the pydantic class that defines the options.
        origins: the sources from which the options were read.
    """
    wrong: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        wrong.setdefault(".".join(path_of(model, detail["loc"])), []).append(detail)
    lines = [
        _explain_one(option, details, model, origins.source(option))
        for option, details in wrong.items()
    ]
    return ConfigurationError("\n".join(lines), next(iter(wrong)))


def _explain_one(
    option: str, details: Sequence[ErrorDetails], model: type[BaseModel], source: Source | None
) -> str:
    place = source.place(option) if source else f"option {option!r}"
    spelling = source.spelling if source else repr
    first = details[0]
    if first["type"] == "extra_forbidden":
        return f"{place}: {unknown(option, model, spelling)}"
    kind = kind_at(model, option)
    if first["type"] in _GROUP_ERRORS and is_group(kind):
        names = ", ".join(spelling(f"{option}.{name}") for name in kind.model_fields)
        return f"{place}: {option!r} is a group of options, not an option; its options are: {names}"
    if first["type"] in _GROUP_ERRORS and is_group(inside(kind, "")):
        example = spelling(f"{option}.NAME.{next(iter(inside(kind, '').model_fields))}")
        return f"{place}: {option!r} holds groups of options by name; write {example}, for example"
    field = field_at(model, option)
    about = f" ({field.description})" if field is not None and field.description else ""
    return f"{place}: {_fix(details)}{about}"


def _fix(details: Sequence[ErrorDetails]) -> str:
    """Return the text that says how to correct a wrong value.

    ``details`` are the errors about one option: one error per type if its type is a union.
    """
    allowed = [
        _ALLOWED[detail["type"]].format(**detail.get("ctx", {}))
        for detail in details
        if detail["type"] in _ALLOWED
    ]
    if not allowed:
        return str(details[0].get("ctx", {}).get("error") or details[0]["msg"])
    choices = re.findall("'([^']*)'", " ".join(allowed))
    near = closest(str(details[0]["input"]), choices)
    hint = f"; did you mean {near!r}?" if near and len(choices) > 1 else ""
    return f"use {' or '.join(dict.fromkeys(allowed))}{hint}"


def unknown(option: str, model: type[BaseModel], spelling: Callable[[str], str] = repr) -> str:
    """Return the text that says how to correct the name of an option that does not exist.

    The text suggests a similar option, or lists all options of the group.  ``spelling`` converts
    an option's name to the form of the source, such as the name of an environment variable.
    """
    group, _, name = option.rpartition(".")
    kind = kind_at(model, group) if group else model
    names = list(kind.model_fields) if is_group(kind) else []
    prefix = f"{group}." if group else ""
    own = {one: prefix + one for one in names}
    all_names = list(option_names(model))
    everywhere = {one.rpartition(".")[2]: one for one in reversed(all_names)}
    # Dotted names are added too, because a user may write console_format for console.format.
    everywhere |= {one: one for one in all_names}
    # A correct name in the wrong group is more likely than a bad misspelling, so very similar
    # names in all groups are tried before less similar names in this group.
    for known, similarity in ((own, _VERY_SIMILAR), (everywhere, _VERY_SIMILAR), (own, _SIMILAR)):
        near = closest(name, known, similarity)
        if near:
            return f"there is no such option; did you mean {spelling(known[near])}?"
    return f"there is no such option; options are: {', '.join(map(spelling, own.values()))}"


def closest(name: str, known: Iterable[str], similarity: float = _SIMILAR) -> str:
    """Return the most similar name in ``known``, or "" if all names are too different.

    ``similarity`` is the required similarity from 0 to 1, as measured by difflib.
    """
    plain = {_plain(one): one for one in known}
    near = difflib.get_close_matches(_plain(name), plain, 1, cutoff=similarity)
    return plain[near[0]] if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "")
