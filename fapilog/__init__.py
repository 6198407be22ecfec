"""fapilog logs each event of an application as an OpenTelemetry LogRecord.

This module contains only the public names.  Names that a log call does not need are loaded
when they are first used, so importing fapilog takes little longer than importing
OpenTelemetry's API.  Inside the package, only ``fapilog.cli.demo`` imports this module.  To
read the code, start with ``fapilog/runtime/default.py``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fapilog.context import bind, bind_context, clear_context, collect, unbind_context
from fapilog.engine.holding import hold
from fapilog.engine.logger import AsyncLogger, Logger
from fapilog.errors import ConfigurationError, FapilogError
from fapilog.record import LogRecord
from fapilog.runtime.default import (
    configure,
    flush,
    get_async_logger,
    get_logger,
    get_runtime,
    install_celery,
    install_stdlib,
    set_level,
    shutdown,
    stats,
    uninstall_stdlib,
)
from fapilog.severity import Severity

if TYPE_CHECKING:
    from fapilog.bridges.hooks import install_hooks, uninstall_hooks
    from fapilog.bridges.stdlib import Handler
    from fapilog.runtime.runtime import Runtime
    from fapilog.settings import Settings

__version__ = "1.0.0.dev0"

__all__ = [
    "AsyncLogger",
    "ConfigurationError",
    "FapilogError",
    "Handler",
    "LogRecord",
    "Logger",
    "Runtime",
    "Settings",
    "Severity",
    "__version__",
    "bind",
    "bind_context",
    "clear_context",
    "collect",
    "configure",
    "flush",
    "get_async_logger",
    "get_logger",
    "get_runtime",
    "hold",
    "install_celery",
    "install_hooks",
    "install_stdlib",
    "set_level",
    "shutdown",
    "stats",
    "unbind_context",
    "uninstall_hooks",
    "uninstall_stdlib",
]

_LAZY = {
    "Handler": "fapilog.bridges.stdlib",
    "Runtime": "fapilog.runtime.runtime",
    "Settings": "fapilog.settings",
    "install_hooks": "fapilog.bridges.hooks",
    "uninstall_hooks": "fapilog.bridges.hooks",
}


if not TYPE_CHECKING:  # type checkers accept any name of a module that has a __getattr__

    def __getattr__(name: str) -> Any:
        module = _LAZY.get(name)
        if module is None:
            renamed = import_module("fapilog.renamed")
            raise renamed.module_attribute(__name__, name)
        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
