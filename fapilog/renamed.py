"""Maps names of other logging libraries and of fapilog 0.18 to their replacements.

If an application uses such a name, fapilog raises an error whose message contains the
replacement.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_BY_CONFIGURE: Final = "use fapilog.configure(...)"
_BY_SINKS: Final = "use fapilog.configure(sinks=[...])"
_BY_PROCESSORS: Final = "use fapilog.configure(processors=[...])"
_BY_EXCEPTION: Final = "call log.exception(...) in an except block"
_BY_LEVELS: Final = "use fapilog.set_level(level, 'logger.name')"
_BY_SEVERITIES: Final = "use log.log('name', ...) with the option severities, or log.info(...)"
_BY_ASYNC: Final = "use await fapilog.get_async_logger(name).info(...), and so on"
_BY_COPIED_CONTEXT: Final = (
    "asyncio copies the context; for a thread, use contextvars.copy_context().run(...)"
)
_NO_LONGER: Final = "fapilog does this by itself"

#: The replacements of attributes that the loggers of other libraries have and fapilog's loggers
#: lack.  ``fapilog/engine/logger.py`` repeats the names, so that it need not load these strings.
LOGGER: Final[Mapping[str, str]] = {
    # names from logging
    "setLevel": _BY_LEVELS,
    "getEffectiveLevel": "use log.is_enabled(severity)",
    "isEnabledFor": "use log.is_enabled(severity)",
    "hasHandlers": "use log.is_enabled(severity)",
    "level": "use log.is_enabled(severity), or fapilog.set_level(level, 'logger.name')",
    "disabled": "use fapilog.set_level('off', 'logger.name')",
    "propagate": _BY_SINKS,
    "handlers": _BY_SINKS,
    "addHandler": _BY_SINKS,
    "removeHandler": _BY_SINKS,
    "filters": _BY_PROCESSORS,
    "addFilter": _BY_PROCESSORS,
    "removeFilter": _BY_PROCESSORS,
    "getChild": "use fapilog.get_logger('logger.name.child')",
    "handle": "use log.log(severity, message, **attributes)",
    # names from structlog
    "msg": "use log.info(message)",
    "err": "use log.error(message)",
    "failure": _BY_EXCEPTION,
    "new": "use fapilog.get_logger(name).bind(...)",
    "try_unbind": "use log.unbind(...)",
    **dict.fromkeys(
        ("adebug", "ainfo", "awarning", "aerror", "acritical", "aexception", "alog"), _BY_ASYNC
    ),
    # names from loguru
    "success": _BY_SEVERITIES,
    "opt": "use exc_info=, stack_info= and stacklevel= of each log call",
    "catch": _BY_EXCEPTION,
    "patch": _BY_PROCESSORS,
    "contextualize": "use fapilog.bind(...)",
    "add": _BY_SINKS,
    "remove": _BY_SINKS,
    "configure": _BY_CONFIGURE,
    "enable": _BY_LEVELS,
    "disable": "use fapilog.set_level('off', 'logger.name')",
    "complete": "use fapilog.flush()",
    # names from logfire
    "notice": _BY_SEVERITIES,
    "span": "use OpenTelemetry's tracer; records get the ids of the active span",
    # names from fapilog 0.18
    "clear_context": "use fapilog.clear_context()",
    "audit": _BY_SEVERITIES,
    "security": _BY_SEVERITIES,
    "unsafe_debug": "use log.debug(...) with the option redact_allow",
    "start": _NO_LONGER,
    "stop_and_drain": "use fapilog.shutdown()",
    "drain": "use fapilog.shutdown()",
    "flush": "use fapilog.flush()",
    "check_health": "use fapilog.stats()",
    "self_test": "run `fapilog check`",
    "enable_enricher": _BY_PROCESSORS,
    "disable_enricher": _BY_PROCESSORS,
}

_PACKAGE: Final[Mapping[str, str]] = {
    # names from logging
    "getLogger": "use fapilog.get_logger(name)",
    "basicConfig": _BY_CONFIGURE,
    "StreamHandler": "use fapilog.configure(sinks='console')",
    "FileHandler": "use fapilog.configure(sinks='file:PATH')",
    "captureWarnings": "use fapilog.install_hooks()",
    # names from structlog, loguru, logfire
    "contextvars": "use fapilog.bind_context(...), unbind_context(...) and clear_context()",
    "bind_contextvars": "use fapilog.bind_context(...)",
    "unbind_contextvars": "use fapilog.unbind_context(...)",
    "clear_contextvars": "use fapilog.clear_context()",
    "bound_contextvars": "use fapilog.bind(...)",
    "contextualize": "use fapilog.bind(...)",
    "logger": "use log = fapilog.get_logger(__name__)",
    "instrument": "use OpenTelemetry's instrumentation",
    **dict.fromkeys(
        ("trace", "debug", "info", "warning", "warn", "error", "critical", "exception", "log"),
        "use log = fapilog.get_logger(__name__), and call its methods",
    ),
    # names from fapilog 0.18
    "LoggerBuilder": _BY_CONFIGURE,
    "AsyncLoggerBuilder": _BY_CONFIGURE,
    "runtime_async": _BY_CONFIGURE + " and fapilog.get_async_logger(name)",
    "LogEvent": "use fapilog.LogRecord",
    "DrainResult": "use fapilog.stats()",
    "AdaptiveDrainSummary": "use fapilog.stats()",
    "PresetName": _BY_CONFIGURE,
    "RedactionPresetName": "use the options redact_fields and redact_allow",
    "list_presets": _BY_CONFIGURE,
    "register_level": "use fapilog.configure(severities={'notice': 'info2'})",
    "get_cached_loggers": "loggers of one name share their state; no list is needed",
    "clear_logger_cache": "use fapilog.shutdown()",
    "install_shutdown_handlers": _NO_LONGER,
    "create_task_with_context": _BY_COPIED_CONTEXT,
    "preserve_context": _BY_COPIED_CONTEXT,
    "run_in_executor_with_context": _BY_COPIED_CONTEXT,
    "VERSION": "use fapilog.__version__",
}
_CORE: Final[Mapping[str, str]] = {
    "Settings": "use fapilog.Settings",
    "ObservabilitySettings": "use fapilog.core.observability.ObservabilitySettings",
    "LogEvent": "use fapilog.LogRecord",
    "DrainResult": "use fapilog.stats()",
    "FapilogError": "use fapilog.FapilogError",
    "ConfigurationError": "use fapilog.ConfigurationError",
    "load_settings": "use fapilog.Settings(...)",
    "request_id_var": "use fapilog.bind(...)",
}
_MODULES: Final = {"fapilog": _PACKAGE, "fapilog.core": _CORE}

#: The replacements of the arguments that ``get_logger`` had in fapilog 0.18.
_ARGUMENTS: Final[Mapping[str, str]] = {
    "preset": "use fapilog.configure(...) once; it has good defaults",
    "settings": "use fapilog.configure(settings) once",
    "sinks": "use fapilog.configure(sinks=[...]) once",
    "auto_detect": "use fapilog.configure(...) once",
    "reuse": "loggers of one name always share their state",
}


def module_attribute(module: str, name: str) -> Exception:
    """Return the error for a name that a module lacks; its message names the replacement.

    The error is an ``AttributeError``, except in the statement ``from fapilog import name``, in
    which Python would replace its message.  In this statement it is an ``ImportError``.  To
    recognise the statement, the function reads the code two stack frames above this function.
    """
    here = _MODULES[module].get(name)
    if here is None:
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    if _is_import(2):
        return ImportError(f"cannot import name {name!r} from {module!r}; {here}", name=module)
    return AttributeError(f"module {module!r} has no attribute {name!r}; {here}")


def check_fields(name: object, fields: Mapping[str, object]) -> None:
    """Check the keyword arguments of ``get_logger``, each of which becomes a field of the logger.

    Raises:
        TypeError: ``name`` is passed as a keyword argument and not by position, or a keyword
            argument is an option of ``get_logger`` in fapilog 0.18.
    """
    if "name" in fields and not name:
        msg = f"get_logger() takes the name by position: get_logger({fields['name']!r:.100})"
        raise TypeError(msg)
    for argument, here in _ARGUMENTS.items():
        if argument in fields:
            msg = (
                f"get_logger() has no argument {argument!r}; {here}.  To bind a field of this "
                f"name, use get_logger(...).bind({argument}=...)"
            )
            raise TypeError(msg)


def _is_import(depth: int) -> bool:
    """Return whether a stack frame is executing a statement ``from module import name``.

    The frame is ``depth`` frames above the function that calls this function.
    """
    from opcode import opmap  # noqa: PLC0415 - only an error needs it

    frame = sys._getframe(depth + 1)  # noqa: SLF001 - documented; the statement has no other sign
    place = frame.f_lasti
    return place >= 0 and frame.f_code.co_code[place] == opmap["IMPORT_FROM"]
