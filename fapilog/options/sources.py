"""Reads options from arguments, environment variables and configuration files.

Each source is a class that also converts an option's name to the form in which users write it,
such as ``FAPILOG_LEVEL``, so that an error message shows this form.
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
#: Separates the names of a group and an option in an environment variable: FAPILOG_FILE__PATH.
_DELIMITER: Final = "__"
#: The environment variable that contains the path of a configuration file.  This file may set
#: every option, because the user named it.
CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
_TABLE: Final = ("tool", "fapilog")
#: Finds the table ``[tool.fapilog]`` in the text of a pyproject.toml that is not valid TOML.
_MENTIONED: Final = re.compile(rb"tool[\"'\s]*\.[\"'\s]*fapilog")
#: The exceptions that are raised if a file cannot be read or is not valid TOML.
_UNREADABLE: Final = (OSError, ValueError, RecursionError)
#: A message on stderr lists at most this number of options, each with at most this number of
#: characters.
_SHOWN: Final = 20

#: OpenTelemetry's environment variables, each with the option that it sets, and True if its value
#: is in milliseconds.  If two variables set the same option, the first variable wins.
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
#: The longest duration, in milliseconds, that OpenTelemetry's variables can set.  Longer durations
#: are reduced to it.
_LONGEST: Final = 86_400_000
#: Only this many digits of a number in an environment variable are read, because int() rejects
#: thousands of digits.
_DIGITS: Final = 18


class Source(Protocol):
    """A source of options.  The name of an option is its dotted path: ``file.max_bytes``."""

    def __call__(self) -> dict[str, Any]:
        """Return the options by name, such as ``{"level": "info", "file": {"path": "a.log"}}``."""
        ...

    def origin(self, option: str) -> str:
        """Return the name of the variable or file that sets ``option``.

        If an argument sets the option, return the word "argument".
        """
        ...

    def place(self, option: str) -> str:
        """Return the first words of an error message about ``option``, which say where it is set.

        Examples are ``FAPILOG_LEVEL``, ``option 'level'`` and ``key 'level' in fapilog.toml``.
        """
        ...

    def spelling(self, option: str) -> str:
        """Return ``option`` as users write it in this source, such as ``FAPILOG_FILE__PATH``."""
        ...


class ArgumentSource:
    """The source of options that are arguments of ``Settings``.

    Args:
        values: the arguments by name; the options of a group are in a nested dict.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __call__(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return self._values

    def origin(self, option: str) -> str:  # noqa: ARG002 - see Source
        """Return the word ``argument`` for every option."""
        return "argument"

    def place(self, option: str) -> str:
        """Return the first words of an error message about an option: ``option 'level'``."""
        return f"option {option!r}"

    def spelling(self, option: str) -> str:
        """Return the argument that sets ``option``, such as ``file={'path': ...}``."""
        group, *names = option.split(".")
        if not names:
            return repr(option)
        return f"{group}={''.join(f'{{{name!r}: ' for name in names)}...{'}' * len(names)}"


class EnvironmentSource:
    """Reads options from the environment variables that begin with ``FAPILOG_``.

    The names of the variables are not case-sensitive.  Variables that are empty or contain only
    white space are ignored, and a newline at the end of a value is removed.  A group of options
    may be a JSON object in one variable (``FAPILOG_CONSOLE``).  A variable for a single option of
    the group (``FAPILOG_CONSOLE__FORMAT``) overrides the option in this object.

    Args:
        model: the pydantic class that defines the options.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._texts = _own_texts()

    def __call__(self) -> dict[str, Any]:
        """Return the options by name: strings for options, and nested dicts for groups."""
        values: dict[str, Any] = {}
        # Sorted, so that FAPILOG_FILE__PATH is read after FAPILOG_FILE and overrides its path.
        for name, text in sorted(self._texts.items()):
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
        """Parse ``text`` as JSON if ``option`` is a group; otherwise return ``text``."""
        if is_table(kind_at(self._model, option)):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(text)
        return text  # if ``option`` is a group, pydantic reports the invalid JSON as a wrong value

    def origin(self, option: str) -> str:
        """Return the variable that sets ``option``, or the variable that sets its group."""
        return self._split(option)[0]

    def place(self, option: str) -> str:
        """Return the first words of an error message about ``option``.

        An example is ``FAPILOG_FILE__PATH``.  If the variable ``FAPILOG_FILE`` contains the group
        ``file`` as JSON, the words are ``FAPILOG_FILE: path``.
        """
        return ": ".join(self._split(option))

    def spelling(self, option: str) -> str:
        """Return the variable that sets only ``option``, such as ``FAPILOG_FILE__PATH``."""
        return own_variable(option)

    def _split(self, option: str) -> list[str]:
        """Return the variable that sets ``option``, in a list: ``["FAPILOG_FILE__PATH"]``.

        If the variable sets a whole group, such as ``FAPILOG_FILE``, the list also contains the
        name of the option in this group: ``["FAPILOG_FILE", "path"]``.
        """
        # A name in an option may contain a dot, such as the name of a sink in ``routes``.
        variables = {key.replace(_DELIMITER, "."): ENV_PREFIX + key.upper() for key in self._texts}
        parts = option.split(".")
        for count in range(len(parts), 0, -1):
            variable = variables.get(".".join(parts[:count]).lower())
            if variable is not None:
                inside = ".".join(parts[count:])
                return [variable, inside] if inside else [variable]
        variable = own_variable(option)
        deeper = f"{variable}{_DELIMITER}"
        return [next((name for name in variables.values() if name.startswith(deeper)), variable)]


class OTelEnvironmentSource:
    """Reads options from the environment variables of OpenTelemetry.

    See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

    Args:
        model: the pydantic class that defines the options.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __call__(self) -> dict[str, Any]:
        """Return the options by name.  Report variables with wrong values on stderr."""
        names = dict.fromkeys(name for name, _ in OTEL_VARIABLES.values())
        fields = self._model.model_fields
        values = {name: _first_value(name, fields[name]) for name in names}
        _fit(values)
        if values.get("otel_disabled"):
            values["sinks"] = None
        elif values.get("sinks") is None and any(map(_otel_text, _ENDPOINTS)):
            values["sinks"] = "otlp"
        return {name: value for name, value in values.items() if value is not None}

    def origin(self, option: str) -> str:
        """Return the OpenTelemetry variable that sets ``option``."""
        option = option.partition(".")[0]
        candidates = (*_variables_of(option), *_ENDPOINTS)
        return next(filter(_otel_text, candidates), candidates[0])

    def place(self, option: str) -> str:
        """Return the variable that sets ``option``, and its unit if the unit is milliseconds."""
        variable = self.origin(option)
        milliseconds = OTEL_VARIABLES.get(variable, ("", False))[1]
        return f"{variable}, in milliseconds" if milliseconds else variable

    def spelling(self, option: str) -> str:
        """Return OpenTelemetry's variable for ``option``, or fapilog's variable if none exists."""
        return next(iter(_variables_of(option)), own_variable(option))


def _otel_text(variable: str) -> str:
    """Return the value of a variable of OpenTelemetry, or "" if it contains only white space."""
    return os.environ.get(variable, "").strip()


def _first_value(option: str, field: FieldInfo) -> Any:
    """Return the value of the first variable that sets ``option`` to a valid value, or None."""
    for variable in _variables_of(option):
        text = _otel_text(variable)
        if not text:
            continue
        try:
            return _value_of(variable, text, field)
        except ValueError as error:
            announce(f"variable {variable}", f"{variable}={text[:64]!r} is ignored: {error}")
    return None


def _fit(values: dict[str, Any]) -> None:
    """Reduce ``batch_size`` to ``queue_size`` if ``batch_size`` is larger.

    The OpenTelemetry specification does not allow a larger batch size.
    """
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
    """Convert ``text``, the content of ``variable``, to the value of an option.

    Raises:
        ValueError: ``text`` is not allowed.  The caller reports the error on stderr and ignores
            the variable, as the OpenTelemetry specification requires.
    """
    option, milliseconds = OTEL_VARIABLES[variable]
    if variable == "OTEL_RESOURCE_ATTRIBUTES":
        pairs = (pair.partition("=") for pair in text.split(","))
        attributes = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
        return attributes.get("service.name") or None
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
    the file may set.

    Args:
        model: the pydantic class that defines the options.
        path: the path of the file.
        table: the table that contains the options, such as ``("tool", "fapilog")``.  If it is
            empty, the options are at the top level of the file.
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
        """Return the options by name."""
        return self._values

    def origin(self, option: str) -> str:  # noqa: ARG002 - see Source
        """Return the path and the table (if any), such as ``[tool.fapilog] in pyproject.toml``."""
        return self._name

    def place(self, option: str) -> str:
        """Return the first words of an error message: ``key 'level' in fapilog.toml``."""
        return self._key.format(option) + self._name

    def spelling(self, option: str) -> str:
        """Return the name of ``option`` in quotes."""
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
    """Return the options that a file in the working directory may set.

    If the file does not belong to the application, this function reports on stderr which of its
    options are used and which are ignored.
    """
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
            return {}  # pyproject.toml has a syntax error, but does not mention fapilog
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
    """Report that a configuration file cannot be read.

    If the file belongs to the application, raise a ConfigurationError.  Otherwise, write the error
    to stderr and return an empty dict, so that the file is ignored.
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
    if isinstance(error, ConfigurationError):  # _inside() raised it with a complete message
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
    if "config" in content:
        msg = f"key 'config' in {path}: a file cannot name another file; set {CONFIG_VARIABLE}"
        raise ConfigurationError(msg, "config")
    return nested(content)


def _own_texts() -> dict[str, str]:
    """Return the values of fapilog's environment variables that are not empty.

    The keys are the names of the variables in lower case, without ``FAPILOG_``.  The key of the
    option ``file.path`` is ``file__path``.
    """
    return {
        name[len(ENV_PREFIX) :].lower(): text.rstrip("\r\n")
        for name, text in os.environ.items()
        if text.strip() and name.upper().startswith(ENV_PREFIX)
    }


def own_variable(option: str) -> str:
    """Return fapilog's variable for ``option``: ``FAPILOG_FILE__PATH`` for ``file.path``."""
    return ENV_PREFIX + option.upper().replace(".", _DELIMITER)


def readers(model: type[BaseModel], config: object = None) -> tuple[Callable[[], Source], ...]:
    """Return functions that read the environment and the files, in the order of precedence.

    Each function returns a ``Source``.  The only file is ``config`` or, if this argument is empty,
    the file that ``FAPILOG_CONFIG`` names.  If neither is set, the files are ``fapilog.toml`` and
    ``pyproject.toml`` in the working directory.  A function raises ConfigurationError if its file
    cannot be used.
    """
    environment = (
        partial(EnvironmentSource, model),
        partial(OTelEnvironmentSource, model),
    )
    path = str(config or _own_texts().get("config", "").strip())
    if path:
        table = _TABLE if Path(path).name == "pyproject.toml" else ()
        return (*environment, partial(FileSource, model, path, table, named=True))
    return (
        *environment,
        partial(FileSource, model, "fapilog.toml"),
        partial(FileSource, model, "pyproject.toml", _TABLE),
    )


class Origins:
    """Finds the source that sets an option: the first source that contains the option."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._names = [(source, tuple(_names(source()))) for source in sources]

    def source(self, option: str) -> Source | None:
        """Return the source that sets ``option``, or None if no source sets it.

        A source also sets ``option`` if it sets the group of the option or, if ``option`` is a
        group, an option in this group.
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
