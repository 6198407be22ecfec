"""Zero code: what ``opentelemetry-instrument`` loads under the name ``fapilog``.

The distro sets defaults.  The configurator lets the SDK configure traces and
metrics, and puts a pipeline in the place of the SDK's logs.  Both are entry
points; they need what ``fapilog[auto]`` installs, and nothing else loads them.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
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

from fapilog.diagnostics import announce, describe
from fapilog.errors import ConfigurationError
from fapilog.options.sources import FileSource
from fapilog.otel import signals
from fapilog.otel.resource import name_auto_instrumentation
from fapilog.runtime import default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from importlib.metadata import EntryPoint

#: The entry points' name.
NAME: Final = "fapilog"
#: OpenTelemetry's variable for whether the records of ``logging`` are exported.
OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: Final = "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION"

#: How applications set :mod:`logging` up.
_SET_UPS: Final = (
    ("logging", "basicConfig"),
    ("logging.config", "dictConfig"),
    ("logging.config", "fileConfig"),
)
_LOADER: Final = "opentelemetry.instrumentation.auto_instrumentation._load"


class FapilogDistro(BaseDistro):  # type: ignore[misc]  # its module is not typed
    """``OTEL_PYTHON_DISTRO=fapilog``: OTLP over HTTP for all signals, logs by fapilog.

    Variables that are set, and are not empty, stay what they are.
    """

    def _configure(self, **_kwargs: Any) -> None:
        _default(OTEL_PYTHON_CONFIGURATOR, NAME)
        if os.environ[OTEL_PYTHON_CONFIGURATOR] == NAME:
            logging.getLogger(_LOADER).addFilter(_is_news)
        _default(OTEL_TRACES_EXPORTER, "otlp")
        _default(OTEL_METRICS_EXPORTER, "otlp")
        if not _sinks_in_file():
            _default(OTEL_LOGS_EXPORTER, "otlp")
        _default(OTEL_EXPORTER_OTLP_PROTOCOL, "http/protobuf")
        _instrument_children()

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Instrument a library; of ``logging`` all but the handler, where fapilog has its own."""
        if entry_point.name == "logging" and FapilogConfigurator.takes_stdlib:
            kwargs["enable_log_auto_instrumentation"] = False
        super().load_instrumentor(entry_point, **kwargs)


class FapilogConfigurator(sdk._OTelSDKConfigurator):  # noqa: SLF001 - made to be subclassed by distros
    """``OTEL_PYTHON_CONFIGURATOR=fapilog``: traces and metrics by the SDK, logs by fapilog.

    A wrong option is announced in one line and stops neither the application
    nor the other signals.  ``OTEL_SDK_DISABLED=true`` configures nothing.

    Attributes:
        takes_stdlib: whether the records of :mod:`logging` reach fapilog.
    """

    takes_stdlib: ClassVar[bool] = False

    def _configure(self, **kwargs: Any) -> None:
        if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true" or _is_tracker():
            return
        version = kwargs.get("auto_instrumentation_version")
        if version:
            name_auto_instrumentation(version)
        # First: the API lets the global logger provider be set once.
        _configure_logs()
        _configure_others(super()._configure, kwargs)


def _is_tracker() -> bool:
    """Whether this process is of multiprocessing's own, and runs nothing of the application's."""
    return any("multiprocessing.resource_tracker" in argument for argument in sys.orig_argv)


def _default(variable: str, value: str) -> None:
    if not os.environ.get(variable):  # by the specification an empty one is unset
        os.environ[variable] = value


def _sinks_in_file() -> bool:
    """Whether a file says where records go; a variable would win over it."""
    from fapilog.settings import Settings  # noqa: PLC0415 - pydantic loads here

    return isinstance(Settings.origins().source("sinks"), FileSource)


def _is_news(record: logging.LogRecord) -> bool:
    """Hold back that other configurators are not loaded: the distro has seen to it."""
    return not str(record.msg).startswith("Configuration of %s not loaded")


def _instrument_children() -> None:
    """Let the Python processes that this one starts be instrumented too.

    Before 0.63b0 the caller takes the directory of its ``sitecustomize`` out
    of PYTHONPATH for good, and uvicorn's workers would have no telemetry.
    """
    directory = os.path.dirname(os.path.abspath(auto_instrumentation.__file__))  # noqa: PTH100, PTH120 - as the caller does it
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
            FapilogConfigurator.takes_stdlib = True
    except Exception as error:  # noqa: BLE001 - announced; the application must start
        fix = "" if isinstance(error, ConfigurationError) else " (this is a defect of fapilog)"
        announce("auto logs", f"{describe(error)}{fix}; logs are not exported")


def _spare_handler() -> None:
    """Let an application set logging up as if the root logger had no handler of fapilog's.

    ``basicConfig`` does nothing where there is a handler, and the other ways
    remove it.
    """
    for module, name in _SET_UPS:
        wrapt.wrap_function_wrapper(module, name, _with_handler_aside)


def _with_handler_aside(
    wrapped: Callable[..., Any], _instance: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    from fapilog.bridges.stdlib import Handler  # noqa: PLC0415 - loaded by install_stdlib()

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
    try:
        with _without_logs():
            configure(**kwargs)
    except Exception as error:  # noqa: BLE001 - announced; the application must start
        announce(
            "auto sdk",
            f"traces and metrics are not exported: {describe(error)}; mend "
            f"{OTEL_TRACES_EXPORTER}, {OTEL_METRICS_EXPORTER} or {OTEL_EXPORTER_OTLP_PROTOCOL}, "
            "or pip install 'fapilog[auto]'",
        )
    runtime = default.current()
    if runtime is None or runtime.settings.handle_sigterm:
        signals.deliver_on_sigterm()


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep the SDK from logs: from their exporters, and from a provider of its own."""
    exporters = os.environ.pop(OTEL_LOGS_EXPORTER, None)
    original = sdk._init_logging  # noqa: SLF001 - there is no option for it
    sdk._init_logging = _nothing  # noqa: SLF001
    try:
        yield
    finally:
        sdk._init_logging = original  # noqa: SLF001
        if exporters is not None:
            os.environ[OTEL_LOGS_EXPORTER] = exporters


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Stand for the SDK's set-up of logs."""
