"""Reads options from the environment and from files.

Each source knows how its options are written, so that an error shows an option as the
user wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.options import found
from fapilog.options.schema import is_table, kind_at, merged, nested, right_values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ENV_PREFIX: Final = "FAPILOG_"
#: In a variable, the characters between the name of a group and the name of an option.
_DELIMITER: Final = "__"
#: The variable with the path of a configuration file.  The file may set every option,
#: because the user named it.
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
_TABLE: Final = ("tool", "fapilog")
#: Finds options of fapilog in a pyproject.toml that is not valid TOML.
_MENTIONED: Final = re.compile(rb"tool[\"'\s]*\.[\"'\s]*fapilog")
#: The exceptions for a file that cannot be read or is not TOML.
_UNREADABLE: Final = (OSError, ValueError, RecursionError)
#: The maximum number of names in an announcement, and of characters in each name.
_SHOWN: Final = 20

#: OpenTelemetry's variables, and the options that they set.  If two variables set the
#: same option, the first variable wins.  True marks a variable in milliseconds.
OTEL_VARIABLES: Final[Mapping[str, tuple[str, bool]]] = {
    "OTEL_BLRP_MAX_QUEUE_SIZE": ("queue_size", False),
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": ("batch_size", False),
    "OTEL_BLRP_SCHEDULE_DELAY": ("schedule_delay", True),
    "OTEL_BLRP_EXPORT_TIMEOUT": ("export_timeout", True),
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": ("attribute_count_limit", False),
    "OTEL_ATTRIBUTE_COUNT_LIMIT": ("attribute_count_limit", False),
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("attribute_value_length_limit", False),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": ("attribute_value_length_limit", False),
    "OTEL_SDK_DISABLED": ("otel_disabled", False),
    "OTEL_LOGS_EXPORTER": ("sinks", False),
    "OTEL_SERVICE_NAME": ("service_name", False),
    "OTEL_RESOURCE_ATTRIBUTES": ("service_name", False),
}
#: If one of these variables is set and no option names a sink, the sink is ``otlp``.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: The longest duration, in milliseconds.  Longer durations are reduced to it.
_LONGEST: Final = 86_400_000
#: Only this many digits of a number are read; the rest of a longer number is ignored.
_DIGITS: Final = 18


class Source(Protocol):
    """A source of options.  The name of an option is its dotted path: ``file.max_bytes``."""

    def __call__(self) -> dict[str, Any]:
        """Return the values of the options in this source; those of a group are in a mapping."""
        ...

    def origin(self, option: str) -> str:
        """Return the variable or file that sets ``option``, or "argument" if a call sets it."""
        ...

    def place(self, option: str) -> str:
        """Return where ``option`` is set, as the beginning of an error.

        This is a variable, an argument, or a key and its file.
        """
        ...

    def spelling(self, option: str) -> str:
        """Return the option's name as users write it in this source."""
        ...


class ArgumentSource:
    """Returns the options that are arguments of a call.

    Args:
        values: the options by name; those of a group are in a mapping.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __call__(self) -> dict[str, Any]:
        """Return the options."""
        return self._values

    def origin(self, option: str) -> str:  # noqa: ARG002 - see Source
        """Return the word ``argument`` for every option."""
        return "argument"

    def place(self, option: str) -> str:
        """Return the word ``option`` and the option's name in quotes."""
        return f"option {option!r}"

    def spelling(self, option: str) -> str:
        """Return the option as an argument; in a group, such as ``console={'format': ...}``."""
        group, *names = option.split(".")
        if not names:
            return repr(option)
        return f"{group}={''.join(f'{{{name!r}: ' for name in names)}...{'}' * len(names)}"


class EnvironmentSource:
    """Reads options from the environment variables that begin with ``FAPILOG_``.

    Capital and small letters are equal, and an empty variable counts as unset.  The options of
    a group may be a JSON object in the variable of the group (``FAPILOG_CONSOLE``), or each may
    have its own variable (``FAPILOG_CONSOLE__FORMAT``), which wins.

    Args:
        model: the class of the options.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        # By the option's name in small letters, with "__" for each dot.
        self._texts = {
            name[len(ENV_PREFIX) :].lower(): text
            for name, text in os.environ.items()
            if text and name.upper().startswith(ENV_PREFIX)
        }

    def __call__(self) -> dict[str, Any]:
        """Return the text of each option, and a mapping for each group."""
        values: dict[str, Any] = {}
        for name, text in sorted(self._texts.items()):  # FAPILOG_FILE before FAPILOG_FILE__PATH
            option, *keys = name.split(_DELIMITER)
            if not keys and option in self._model.model_fields:
                values[option] = self._read(option, text)
            elif keys and is_table(kind_at(self._model, option)):
                value = self._read(".".join([option, *keys]), text)
                for key in reversed(keys):
                    value = {key: value}
                if isinstance(values.setdefault(option, {}), Mapping):
                    values[option] = merged(values[option], value)
        return values

    def _read(self, option: str, text: str) -> Any:
        """Return the JSON value in ``text`` if ``option`` is a group, or else ``text``."""
        if is_table(kind_at(self._model, option)):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(text)
        return text  # validation reports a text in the place of a group

    def origin(self, option: str) -> str:
        """Return the variable of the option, or of its group if only that is set."""
        return self._split(option)[0]

    def place(self, option: str) -> str:
        """Return the variable; for that of a group, also the option's name in the group."""
        return ": ".join(self._split(option))

    def spelling(self, option: str) -> str:
        """Return the variable of the option, not of its group."""
        return own_variable(option)

    def _split(self, option: str) -> list[str]:
        """Return the variable that sets ``option``, and the name inside a group's variable."""
        parts = option.split(".")
        for count in range(len(parts), 0, -1):
            if _DELIMITER.join(parts[:count]).lower() in self._texts:
                inside = ".".join(parts[count:])
                variable = own_variable(".".join(parts[:count]))
                return [variable, inside] if inside else [variable]
        variable = own_variable(option)
        deeper = f"{variable}{_DELIMITER}"
        names = (own_variable(name) for name in self._texts)
        return [next((name for name in names if name.startswith(deeper)), variable)]


class OTelEnvironmentSource:
    """Reads options from the environment variables of OpenTelemetry.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

    Args:
        model: the class of the options.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __call__(self) -> dict[str, Any]:
        """Return the options that the variables set; announce wrong variables."""
        names = dict.fromkeys(name for name, _ in OTEL_VARIABLES.values())
        fields = self._model.model_fields
        values = {name: _first_value(name, fields[name]) for name in names}
        _fit(values)
        if values.get("otel_disabled"):
            values["sinks"] = None
        elif values.get("sinks") is None and any(os.environ.get(name) for name in _ENDPOINTS):
            values["sinks"] = "otlp"
        return {name: value for name, value in values.items() if value is not None}

    def origin(self, option: str) -> str:
        """Return the variable that set ``option``."""
        option = option.partition(".")[0]
        candidates = (*_variables_of(option), *_ENDPOINTS)
        return next((name for name in candidates if os.environ.get(name)), candidates[0])

    def place(self, option: str) -> str:
        """Return the variable's name, and ``in milliseconds`` if that is its unit."""
        variable = self.origin(option)
        milliseconds = OTEL_VARIABLES.get(variable, ("", False))[1]
        return f"{variable}, in milliseconds" if milliseconds else variable

    def spelling(self, option: str) -> str:
        """Return OpenTelemetry's variable, or fapilog's variable if there is none."""
        return next(iter(_variables_of(option)), own_variable(option))


def _first_value(option: str, field: FieldInfo) -> Any:
    """Return the value of the first valid variable of ``option``, or None."""
    for variable in _variables_of(option):
        text = os.environ.get(variable, "").strip()
        if not text:
            continue
        try:
            return _value_of(variable, text, field)
        except ValueError as error:
            announce(f"variable {variable}", f"{variable}={text[:64]!r} is ignored: {error}")
    return None


def _fit(values: dict[str, Any]) -> None:
    """Reduce a batch size above the queue size, which the specification does not allow."""
    queue, batch = values.get("queue_size"), values.get("batch_size")
    if queue is not None and batch is not None and batch > queue:
        announce(
            "variable OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
            f"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE={batch} is more than OTEL_BLRP_MAX_QUEUE_SIZE="
            f"{queue}; the batch size is {queue}",
        )
        values["batch_size"] = queue


def _variables_of(option: str) -> list[str]:
    return [variable for variable, (name, _) in OTEL_VARIABLES.items() if name == option]


def _value_of(variable: str, text: str, field: FieldInfo) -> Any:
    """Return the value of an option from the text of a variable.

    Raises:
        ValueError: the text is wrong.  The caller announces the error and ignores the
            variable, as the OpenTelemetry specification requires.
    """
    option, milliseconds = OTEL_VARIABLES[variable]
    if variable == "OTEL_RESOURCE_ATTRIBUTES":
        pairs = (pair.partition("=") for pair in text.split(","))
        return {name.strip(): unquote(value.strip()) for name, _, value in pairs}.get(
            "service.name"
        )
    if option in {"sinks", "service_name"}:
        return text
    if option == "otel_disabled":
        if text.lower() not in {"true", "false"}:
            msg = "use true or false; any other value counts as false"
            raise ValueError(msg)
        return text.lower() == "true"
    if not (text.isascii() and text.isdigit()):
        unit = " of milliseconds" if milliseconds else ""
        msg = f"use a whole number{unit}, 0 or more"
        raise ValueError(msg)
    number = int(text[:_DIGITS])
    if milliseconds:
        unlimited = not number and option == "export_timeout"
        return (_LONGEST if unlimited else min(number, _LONGEST)) / 1000
    least = next((one.ge for one in field.metadata if hasattr(one, "ge")), 0)
    most = next((one.le for one in field.metadata if hasattr(one, "le")), None)
    if number < least or (most is not None and number > most):
        msg = f"use a number from {least} {'up' if most is None else f'to {most}'}"
        raise ValueError(msg)
    return number


class FileSource:
    """Reads options from a TOML file, or from one table in it.

    If the user did not name the file, :mod:`fapilog.options.found` decides which options
    it may set.

    Args:
        model: the class of the options.
        path: the path of the file.
        table: the names of the table that contains the options; empty: the whole file.
        named: True if the user named the file.

    Raises:
        ConfigurationError: a file that the user named does not exist, or a file that the
            user named or that belongs to the application cannot be read.
    """

    def __init__(
        self,
        model: type[BaseModel],
        path: str,
        table: tuple[str, ...] = (),
        *,
        named: bool = False,
    ) -> None:
        self._name = f"[{'.'.join(table)}] in {path}" if table else path
        self._key = "key {!r} of " if table else "key {!r} in "
        read = _named if named else partial(_found, model, self._name)
        self._values = read(Path(path), table)

    def __call__(self) -> dict[str, Any]:
        """Return the options."""
        return self._values

    def origin(self, option: str) -> str:  # noqa: ARG002 - see Source
        """Return the file, and the table if the options are in one."""
        return self._name

    def place(self, option: str) -> str:
        """Return the option's key and the file."""
        return self._key.format(option) + self._name

    def spelling(self, option: str) -> str:
        """Return the option's key in quotes."""
        return repr(option)


def _named(path: Path, table: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of a file that the user named."""
    try:
        return _inside(path.read_text(encoding="utf-8-sig"), path, table)
    except FileNotFoundError:
        msg = f"{path}: there is no such file; give config or {CONFIG_VARIABLE} an existing path"
        raise ConfigurationError(msg) from None
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _found(model: type[BaseModel], name: str, path: Path, table: tuple[str, ...]) -> dict[str, Any]:
    """Return the options that a file in the working directory may set; announce the others."""
    try:
        content, is_own = found.read(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        return _unusable(path, error)
    try:
        values = _inside(content.decode("utf-8-sig"), path, table)
    except _UNREADABLE as error:
        is_toml = isinstance(error, ConfigurationError)
        if table and not is_toml and not _MENTIONED.search(content):
            return {}  # the file has no options of fapilog; other tools report the error
        return _unusable(path, error)
    if not values or (is_own and found.belongs_to_application(path)):
        return values
    kept, others = right_values(model, values, found.is_harmless)
    announce(
        f"file {path}",
        f"{name} was found in the working directory and not named: "
        f"{_shown('obeyed', list(_names(kept)))}{_shown('ignored', others)}"
        f"if the file is yours, set {CONFIG_VARIABLE}={path}",
    )
    return kept


def _unusable(path: Path, error: Exception) -> dict[str, Any]:
    """Raise the error if the file belongs to the application; announce it otherwise.

    After an announcement, the file is ignored: the result is empty.
    """
    wrong = _unreadable(path, error)
    if found.belongs_to_application(path):
        raise wrong from None
    announce(f"file {path}", f"{wrong}; the file is ignored, because the user did not name it")
    return {}


def _shown(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    listed = ", ".join(name[:_SHOWN] for name in names[:_SHOWN])
    return f"{verb} options: {listed}{more}; " if names else ""


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    if isinstance(error, ConfigurationError):  # raised by _inside(), with a complete message
        return error
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigurationError(f"{path} cannot be read: {reason}; fix it, or remove it")


def _inside(text: str, path: Path, table: tuple[str, ...]) -> dict[str, Any]:
    content: Any = tomllib.loads(text)
    tool = content.get("tool")
    if not table and isinstance(tool, dict) and "fapilog" in tool:
        msg = f"[tool.fapilog] in {path}: write its options at the top, without a table around them"
        raise ConfigurationError(msg)
    for name in table:
        content = content.get(name, {})
        if not isinstance(content, dict):
            msg = f"{name!r} in {path} is not a table; write [{'.'.join(table)}] above the options"
            raise ConfigurationError(msg)
    return nested(content)


def own_variable(option: str) -> str:
    """Return the ``FAPILOG_`` variable of an option."""
    return ENV_PREFIX + option.upper().replace(".", _DELIMITER)


def readers(model: type[BaseModel], config: object = None) -> tuple[Callable[[], Source], ...]:
    """Return one function per source that opens the source.  Earlier sources win.

    The last source is the file ``config``, or the file that ``FAPILOG_CONFIG`` names.  If
    both are empty, the last sources are the files in the working directory.  The function
    of a file raises ConfigurationError if it cannot use the file.
    """
    environment = (
        partial(EnvironmentSource, model),
        partial(OTelEnvironmentSource, model),
    )
    path = str(config or os.environ.get(CONFIG_VARIABLE, "").strip())
    if path:
        table = _TABLE if Path(path).name == "pyproject.toml" else ()
        return (*environment, partial(FileSource, model, path, table, named=True))
    return (
        *environment,
        partial(FileSource, model, "fapilog.toml"),
        partial(FileSource, model, "pyproject.toml", _TABLE),
    )


class Origins:
    """Finds the source that sets an option: the first of ``sources`` that contains it."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._names = [(source, tuple(_names(source()))) for source in sources]

    def source(self, option: str) -> Source | None:
        """Return the source that sets an option, its group or an option in it.

        Returns None if the option has its default.
        """
        for source, names in self._names:
            for name in names:
                if f"{name}.".startswith(f"{option}.") or f"{option}.".startswith(f"{name}."):
                    return source
        return None


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the options in ``values``."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
