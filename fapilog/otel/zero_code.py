"""The OpenTelemetry distro and configurator that are registered under the name ``fapilog``.

The command ``opentelemetry-instrument`` loads them.  The distro sets default values of environment
variables.  The configurator lets the SDK configure traces and metrics, and configures fapilog for
logs.  The extra ``fapilog[auto]`` installs the packages that this module needs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

import wrapt
from opentelemetry.environment_variables import (
    OTEL_LOGS_EXPORTER,
    OTEL_METRICS_EXPORTER,
    OTEL_TRACES_EXPORTER,
)
from opentelemetry.instrumentation import auto_instrumentation
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_CONFIGURATOR
from opentelemetry.sdk import _configuration as sdk
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_SDK_DISABLED

from fapilog.bridges.celery import hide_doubles
from fapilog.diagnostics import announce, describe
from fapilog.errors import ConfigurationError
from fapilog.options.sources import FileSource
from fapilog.otel import signals
from fapilog.otel.resource import name_auto_instrumentation
from fapilog.runtime import default

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.metadata import EntryPoint

#: The entry point name under which the distro and the configurator are registered.
NAME: Final = "fapilog"
#: The variable of OpenTelemetry that decides whether records of :mod:`logging` are exported.
OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: Final = "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION"

#: The functions that applications call to configure :mod:`logging`.
_SET_UPS: Final = (
    ("logging", "basicConfig"),
    ("logging.config", "dictConfig"),
    ("logging.config", "fileConfig"),
)
_LOADER: Final = "opentelemetry.instrumentation.auto_instrumentation._load"


class FapilogDistro(BaseDistro):  # type: ignore[misc]  # its module is not typed
    """Makes OTLP over HTTP the default for logs, traces and metrics.

    The variable ``OTEL_PYTHON_DISTRO=fapilog`` selects this distro.  The distro sets these
    defaults in environment variables, but only in variables that are unset or empty.
    """

    def _configure(self, **_kwargs: Any) -> None:
        _default(OTEL_PYTHON_CONFIGURATOR, NAME)
        if os.environ[OTEL_PYTHON_CONFIGURATOR] == NAME:
            logging.getLogger(_LOADER).addFilter(_is_news)
        _default(OTEL_TRACES_EXPORTER, "fapilog_otlp")
        _default(OTEL_METRICS_EXPORTER, "otlp")
        if not _sinks_in_file():
            _default(OTEL_LOGS_EXPORTER, "otlp")
        _default(OTEL_EXPORTER_OTLP_PROTOCOL, "http/protobuf")
        _instrument_children()

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Instrument a library.

        If fapilog has installed its own handler for :mod:`logging`, OpenTelemetry's handler is not
        installed.
        """
        if entry_point.name == "logging" and FapilogConfigurator.takes_stdlib:
            kwargs["enable_log_auto_instrumentation"] = False
        super().load_instrumentor(entry_point, **kwargs)


class FapilogConfigurator(sdk._OTelSDKConfigurator):  # noqa: SLF001 - made to be subclassed by distros
    """Configures fapilog for logs, and the SDK for traces and metrics.

    The variable ``OTEL_PYTHON_CONFIGURATOR=fapilog`` selects this configurator.  An invalid option
    is reported on stderr and does not stop the application.  If ``OTEL_SDK_DISABLED`` is ``true``,
    neither fapilog nor the SDK is configured.

    Attributes:
        takes_stdlib: whether fapilog receives the records of :mod:`logging`.
    """

    takes_stdlib: ClassVar[bool] = False

    def _configure(self, **kwargs: Any) -> None:
        if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true" or _is_tracker():
            return
        version = kwargs.get("auto_instrumentation_version")
        if version:
            name_auto_instrumentation(version)
        # fapilog is configured before the SDK, because the global logger provider can be set only
        # once.
        _configure_logs()
        _configure_others(super()._configure, kwargs)


def _is_tracker() -> bool:
    """Return whether this process is multiprocessing's resource tracker.

    The resource tracker runs no code of the application.
    """
    return any("multiprocessing.resource_tracker" in argument for argument in sys.orig_argv)


def _default(variable: str, value: str) -> None:
    if not os.environ.get(variable):  # the specification treats an empty variable as unset
        os.environ[variable] = value


def _sinks_in_file() -> bool:
    """Return whether a configuration file sets fapilog's sinks.

    If so, the distro must not set ``OTEL_LOGS_EXPORTER``, which would override the file.
    """
    from fapilog.settings import Settings  # noqa: PLC0415 - imports pydantic

    return isinstance(Settings.origins().source("sinks"), FileSource)


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for the warning that an OpenTelemetry configurator is not loaded.

    This function is a filter of a logger, so it hides the warning.  The warning is not useful,
    because fapilog's configurator replaces the other configurators on purpose.
    """
    return not str(record.msg).startswith("Configuration of %s not loaded")


def _instrument_children() -> None:
    """Put the directory of OpenTelemetry's ``sitecustomize`` back into PYTHONPATH.

    Before version 0.63b0, ``opentelemetry-instrument`` removes this directory.  Without the
    directory, Python child processes, such as uvicorn's workers, would have no telemetry.
    """
    directory = os.path.dirname(os.path.abspath(auto_instrumentation.__file__))  # noqa: PTH100, PTH120 - must equal the removed path
    found = getattr(sys.modules.get("sitecustomize"), "__file__", None) or ""
    path = os.environ.get("PYTHONPATH", "")
    if hasattr(auto_instrumentation, "_initialize") or not found.startswith(directory):
        return
    os.environ["PYTHONPATH"] = os.pathsep.join([directory, *filter(None, [path])])


def _configure_logs() -> None:
    wanted = os.environ.get(OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION, "").strip().lower() != "false"
    try:
        default.configure()
        if wanted:
            default.install_stdlib()
            _spare_handler()
            # The command ``celery`` is imported later.
            wrapt.register_post_import_hook(lambda _module: hide_doubles(), "celery.signals")
            FapilogConfigurator.takes_stdlib = True
    except Exception as error:  # noqa: BLE001 - the application must start
        fix = "" if isinstance(error, ConfigurationError) else " (this is a defect of fapilog)"
        announce("auto logs", f"{describe(error)}{fix}; logs are not exported")
        with contextlib.suppress(Exception):  # spans still need a runtime
            default.fall_back()


def _spare_handler() -> None:
    """Keep fapilog's handler while the application configures :mod:`logging`.

    ``basicConfig`` does nothing if the root logger has a handler, and ``dictConfig`` and
    ``fileConfig`` remove the handler.  Therefore each of these functions is replaced by a wrapper,
    which removes fapilog's handler before the call and adds it again after the call.
    """
    for module, name in _SET_UPS:
        wrapt.wrap_function_wrapper(module, name, _with_handler_aside)


def _with_handler_aside(
    wrapped: Callable[..., Any], _instance: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    from fapilog.bridges.stdlib import Handler  # noqa: PLC0415 - install_stdlib() has loaded it

    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, Handler)]
    for handler in ours:
        root.removeHandler(handler)
    try:
        return wrapped(*args, **kwargs)
    finally:
        if not any(isinstance(handler, Handler) for handler in root.handlers):
            for handler in ours:
                root.addHandler(handler)


def _configure_others(configure: Callable[..., None], kwargs: dict[str, Any]) -> None:
    # The SDK must not create log exporters or a logger provider, because fapilog handles the logs.
    exporters = os.environ.pop(OTEL_LOGS_EXPORTER, None)
    original = sdk._init_logging  # noqa: SLF001 - the SDK has no option for it
    sdk._init_logging = lambda *_args, **_kwargs: None  # noqa: SLF001
    try:
        configure(**kwargs)
    except Exception as error:  # noqa: BLE001 - the application must start
        announce(
            "auto sdk",
            f"traces and metrics are not exported: {describe(error)}; correct "
            f"{OTEL_TRACES_EXPORTER}, {OTEL_METRICS_EXPORTER} or {OTEL_EXPORTER_OTLP_PROTOCOL}, "
            "or pip install 'fapilog[auto]'",
        )
    finally:
        sdk._init_logging = original  # noqa: SLF001
        if exporters is not None:
            os.environ[OTEL_LOGS_EXPORTER] = exporters
    runtime = default.get_runtime()
    if runtime is None or runtime.settings.handle_sigterm:
        signals.deliver_on_sigterm()
