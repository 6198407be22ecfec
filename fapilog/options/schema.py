"""Functions for the names, groups and types of the options that a pydantic class defines.

An option in a group has a dotted name, such as ``file.max_bytes`` or ``routes.otlp.level``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic.fields import FieldInfo


def path_of(model: type[BaseModel], location: Iterable[int | str]) -> Iterator[str]:
    """Yield the parts of an option's dotted name from the location of a pydantic error.

    The ``location`` may also contain the types of a union, which are omitted.
    """
    kind: Any = model
    for part in location:
        if kind is None or part == "[key]":
            return
        yield str(part)
        kind = inside(kind, str(part))


def kind_at(model: type[BaseModel], option: str) -> Any:
    """Return the type of ``option``, or None if ``option`` is not a group, a mapping or a list."""
    kind: Any = model
    for part in option.split("."):
        kind = inside(kind, part)
    return kind


def inside(kind: Any, part: str) -> Any:
    """Return the type of the field ``part`` of a group, or of the values of a mapping or a list.

    ``kind`` is the type of the group, the mapping or the list.  Returns None for a field or a
    value that is not itself a group, a mapping or a list.
    """
    if is_group(kind):
        field = kind.model_fields.get(part)
        kind = None if field is None else field.annotation
    elif get_origin(kind) is dict:
        kind = get_args(kind)[1]
    elif get_origin(kind) in (list, tuple):
        kind = get_args(kind)[0]
    else:
        return None
    while get_origin(kind) in (Annotated, Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        if get_origin(kind) is not Annotated and len(kinds) > 1:
            return None
        kind = kinds[0]
    return kind if is_group(kind) or get_origin(kind) in (dict, list, tuple) else None


def field_at(model: type[BaseModel], option: str) -> FieldInfo | None:
    """Return the pydantic field of ``option``, or of the mapping or list that contains it."""
    found, kind = None, model
    for part in option.split("."):
        if is_group(kind):
            found = kind.model_fields.get(part, found)
        kind = inside(kind, part)
    return found


def is_group(kind: Any) -> bool:
    """Return whether ``kind`` is a pydantic model class, which defines a group of options."""
    # On Python 3.10, dict[str, int] is an instance of type, but issubclass() refuses it.
    return get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel)


def option_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all options, including the options in groups."""
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if is_group(kind):
            yield from option_names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def is_table(kind: Any) -> bool:
    """Return whether ``kind`` is a group of options, or a mapping whose values are such groups."""
    return is_group(kind) or is_group(inside(kind, ""))


def containers(model: type[BaseModel]) -> Iterator[str]:
    """Yield the names of the groups, and of the mappings with groups as values, such as routes."""
    return (name for name in model.model_fields if is_table(inside(model, name)))


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert ``{"console.format": "json"}`` to ``{"console": {"format": "json"}}``."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        group, dot, inner = name.partition(".")
        found = merged(found, {group: nested({inner: value})} if dot else {name: value})
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings and the mappings inside them.

    If both mappings contain the same key, the value in ``above`` wins.
    """
    both = {
        name: merged(below[name], value)
        for name, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
    }
    return {**below, **above, **both}


def kept(kind: Any, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the options of earlier calls (``before``) with the options of a call (``now``).

    Options in ``now`` override options in ``before``.  The options of a group are merged too, but
    lists and mappings such as ``levels`` are replaced.  ``kind`` is the pydantic class that
    defines the options.
    """
    found = {**before, **now}
    for name in before.keys() & now.keys():
        group = inside(kind, name)
        both = [_as_table(before[name]), _as_table(now[name])]
        if is_table(group) and all(isinstance(one, Mapping) for one in both):
            found[name] = kept(group, *both)
    return found


def _as_table(value: Any) -> Any:
    """Return the explicitly set options of a pydantic object as a dict, other values unchanged."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in value.model_fields_set}
    return value


def kind_of(field: FieldInfo) -> Any:
    """Return the type of an option together with its constraints, such as a minimum."""
    kind: Any = field.annotation
    for part in field.metadata:
        kind = Annotated[kind, part]
    return kind


def right_values(
    model: type[BaseModel],
    values: Mapping[str, Any],
    accepts: Callable[[FieldInfo, Any], bool] = lambda _field, _value: True,
    prefix: str = "",
) -> tuple[dict[str, Any], list[str]]:
    """Validate each option separately, so that a wrong option does not affect valid options.

    Args:
        model: the pydantic class that defines the options.
        values: the options by name; the options of a group are in a nested mapping.
        accepts: a function that gets a field and its valid value, and returns False to refuse it.
        prefix: the beginning of the returned dotted names, such as ``console.``.

    Returns:
        The valid values that ``accepts`` allows, and the dotted names of all other options.
    """
    right: dict[str, Any] = {}
    others: list[str] = []
    for name, value in values.items():
        field = model.model_fields.get(name)
        group: Any = None if field is None else field.annotation
        if isinstance(value, Mapping) and is_group(group):
            inner, more = right_values(group, value, accepts, f"{prefix}{name}.")
            right |= {name: inner} if inner else {}
            others += more
            continue
        try:
            if field is not None:
                checked = TypeAdapter(kind_of(field)).validate_python(value)
                if accepts(field, checked):
                    right[name] = checked
                    continue
        except ValidationError:
            pass  # the name is added to ``others`` below
        others.append(f"{prefix}{name}")
    return right, others
