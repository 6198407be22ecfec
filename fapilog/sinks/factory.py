"""Makes sinks from the names in the option ``sinks`` or the variable ``OTEL_LOGS_EXPORTER``."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from fapilog import sinks
from fapilog.diagnostics import announce, describe
from fapilog.errors import ConfigurationError
from fapilog.options.explain import closest
from fapilog.protocols import BatchLimits, Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from fapilog.record import Resource
    from fapilog.settings import Settings
    from fapilog.sinks.otlp.sink import OTLPSpanSink

_NAMES = (
    "console, otlp, otlp:URL, loki:URL, file:PATH, memory, none, or an OpenTelemetry logs exporter"
)

# Maps the name of a sink to the option whose value may follow the name, as in ``file:PATH``.
_ARGUMENTS: Final = {"console": "stream", "file": "path", "loki": "url"}
# Maps a sink to the text from which sink_of() made it, such as ``file:PATH``.
_specs: Final[MutableMapping[Sink[Any], str]] = WeakKeyDictionary()

#: The name of the sink of spans.
SPANS: Final = "traces"

_LOGS_EXPORTER: Final = "OTEL_LOGS_EXPORTER"
_PARTS = ("name", "limits", "open", "encode", "send", "close", "after_fork")


def make_sinks(
    settings: Settings, given: object = None, resource: Resource | None = None
) -> dict[str, Sink[Any]]:
    """Make and open sinks, and return a mapping from each sink's name to the sink.

    If two sinks have the same name, the key of the second sink ends with a number:
    ``console-2``.  If one sink cannot be opened, the sinks that are already open are closed.

    Args:
        settings: the settings, which contain the options of the sinks.
        given: a sink, a sink's name, or an iterable of sinks and names.  None means the names
            in ``settings``.
        resource: the resource with which the option ``loki.labels`` is checked, or None to skip
            this check.

    Raises:
        ConfigurationError: a name is unknown, an option of a sink is wrong, or a sink
            cannot be opened.
    """
    named = name_sinks(settings, given)
    opened: list[tuple[str, Sink[Any]]] = []
    try:
        for name, sink in named.items():
            _open(name, sink, settings, resource)
            opened.append((name, sink))
    except BaseException:
        for name, sink in reversed(opened):
            _close(name, sink)
        raise
    return named


def name_sinks(settings: Settings, given: object = None) -> dict[str, Sink[Any]]:
    """Return the same mapping as :func:`make_sinks`, but do not open the sinks.

    Raises:
        ConfigurationError: a name is unknown, or an option of a sink is wrong.
    """
    named: dict[str, Sink[Any]] = {}
    for one in wanted_sinks(settings, given):
        sink: Any = sink_of(one, settings) if isinstance(one, str) else one
        if sink is None:
            continue
        _check(sink)
        if any(sink is other for other in named.values()):
            msg = f"option 'sinks': {sink!r} is given twice; make a second sink"
            raise ConfigurationError(msg)
        name = str(sink.name)
        number = 2
        while name in named:
            name, number = f"{sink.name}-{number}", number + 1
        named[name] = sink
    return named


def _known(wanted: Sequence[object], settings: Settings) -> Sequence[object]:
    """Remove unknown names from ``wanted`` if the names come from OTEL_LOGS_EXPORTER.

    For an unknown name in this environment variable, the OpenTelemetry specification requires
    a warning instead of an error.
    """
    if not settings.place("sinks").startswith(_LOGS_EXPORTER):
        return wanted
    exporters = entry_points(group="opentelemetry_logs_exporter").names
    known = []
    for name in map(str, wanted):
        kind = name.partition(":")[0].strip().lower().removeprefix("fapilog_")
        if kind == "none" or kind in _MAKERS or name in exporters:
            known.append(name)
        else:
            announce(f"variable {name}", f"{_LOGS_EXPORTER}: {_unknown(name, exporters)}; ignored")
    return known or ("otlp",)  # the default in the OpenTelemetry specification


def wanted_sinks(settings: Settings, given: object = None) -> Sequence[object]:
    """Return the sinks and sink names in ``given``, or the names in the settings if it is None.

    If the settings contain no sink names either, the result is the name ``console``.

    Raises:
        ConfigurationError: ``given`` contains None.
    """
    option: object = given if given is not None else settings.sinks
    if option is None:
        return ("console",)
    wanted = listed(option)
    if any(one is None for one in wanted):
        _check(None)
    return wanted if given is not None else _known(wanted, settings)


def listed(given: object) -> tuple[object, ...]:
    """Return the sinks and names in ``given``, which may also be a single sink or name."""
    # A file object is not a sink, and a later check refuses it.  This function does not iterate
    # over the file object, because the lines of the file would be treated as names of sinks, and
    # an error message would show a line.
    is_one = isinstance(given, str) or hasattr(given, "write")
    return (given,) if is_one or not isinstance(given, Iterable) else tuple(given)


def _check(sink: Any) -> None:
    if isinstance(sink, type) or not all(hasattr(sink, name) for name in _PARTS):
        fix = f"give names ({_NAMES}) or instances of Sink"
        if isinstance(sink, Path):
            fix = f"write {f'file:{sink}'!r}"
        elif hasattr(sink, "write"):
            fix = "write 'console:stdout' or 'console:stderr', or give ConsoleSink(stream)"
        msg = f"option 'sinks': {sink!r} is not a sink; {fix}"
        raise ConfigurationError(msg)
    if iscoroutinefunction(sink.send):
        msg = (
            f"option 'sinks': send() of {sink!r} is a coroutine function; make it a plain "
            "function, which may block its thread"
        )
        raise ConfigurationError(msg)


def _close(name: str, sink: Sink[Any]) -> None:
    try:
        sink.close()
    except Exception as error:  # noqa: BLE001 - user code; the caller raises the first failure
        announce(f"close {name}", f"sink {name!r} cannot be closed: {describe(error)}")


def _open(name: str, sink: Sink[Any], settings: Settings, resource: Resource | None) -> None:
    check_resource: Any = getattr(sink, "check_resource", None)  # only LokiSink has this method
    try:
        if resource is not None and check_resource is not None:
            check_resource(resource)
        sink.open()
    except ConfigurationError as error:
        if sink not in _specs:
            raise
        raise _placed(error, _specs[sink], settings) from error
    except Exception as error:
        msg = f"sink {name!r} cannot be opened: {describe(error)}"
        raise ConfigurationError(msg) from error


def _placed(error: ConfigurationError, spec: str, settings: Settings) -> ConfigurationError:
    """Return ``error`` with a message that begins with the setting that the user must correct.

    A setting is an environment variable, a key of a configuration file, or an argument.  The
    message names the setting of the wrong option, such as ``file.max_bytes``.  If that option
    is not set, the message names the setting that contains ``spec``, the text from which the
    sink was made, such as ``file:PATH``.
    """
    name = error.option or ""
    if name.isupper():
        return error  # the message already begins with the environment variable
    kind, _, argument = spec.partition(":")
    kind = kind.strip().lower()
    group = getattr(settings, kind).model_dump() if kind in _ARGUMENTS else {}
    fallbacks = (f"routes.{n}.fallback" for n, r in settings.routes.items() if r.fallback == spec)
    if group.get(name) is not None and not (argument and name == _ARGUMENTS[kind]):
        option = f"{kind}.{name}"
    else:
        option = "sinks" if spec in (settings.sinks or ()) else next(fallbacks, "")
    place = settings.place(option) if option else "option 'sinks'"
    return ConfigurationError(f"{place}: {error}", option or "sinks")


def sink_of(spec: str, settings: Settings) -> Sink[Any] | None:
    """Make the sink that ``spec`` describes, but do not open it.  Return None for ``"none"``.

    ``spec`` is the name of a sink, optionally with a colon and an argument: ``file:PATH``.

    Raises:
        ConfigurationError: the name is unknown, or an option of the sink is wrong.
    """
    try:
        sink = _make(spec, settings)
    except ConfigurationError as error:
        raise _placed(error, spec, settings) from error
    if sink is not None:
        _specs[sink] = spec
    return sink


def _make(spec: str, settings: Settings) -> Sink[Any] | None:
    kind, _, argument = spec.strip().partition(":")
    kind = kind.lower().removeprefix("fapilog_")
    if kind == "none":
        return None
    make = _MAKERS.get(kind)
    return _exporter(spec) if make is None else make(settings, argument)


def _console(settings: Settings, stream: str) -> Sink[Any]:
    options = settings.console.model_dump()
    default = options.pop("stream")
    return sinks.ConsoleSink(stream or default, **options)


def _otlp(settings: Settings, endpoint: str) -> Sink[Any]:
    limits = BatchLimits(count=settings.batch_size, delay=settings.schedule_delay)
    return sinks.OTLPSink(endpoint or None, limits=limits)


def span_sink(settings: Settings) -> OTLPSpanSink:
    """Return the sink of spans, which ``OTEL_EXPORTER_OTLP_TRACES_*`` configures, unopened.

    Raises:
        ConfigurationError: a variable is wrong.
    """
    from fapilog.sinks.otlp.sink import OTLPSpanSink  # noqa: PLC0415 - only with spans

    limits = BatchLimits(count=settings.batch_size, delay=settings.schedule_delay)
    return OTLPSpanSink(limits=limits, name=SPANS)


def _loki(settings: Settings, url: str) -> Sink[Any]:
    from fapilog.sinks.loki.sink import LIMITS, LokiSink  # noqa: PLC0415

    options = {name: value for name, value in settings.loki if value is not None}
    default = options.pop("url", None)
    if not url and default is None:
        msg = "'loki' needs a URL: loki:http://localhost:3100, or the option loki.url"
        raise ConfigurationError(msg)
    for name in options.keys() & {"password", "token"}:
        options[name] = options[name].get_secret_value()
    options["headers"] = {
        name: one.get_secret_value() for name, one in settings.loki.headers.items()
    }
    count = min(settings.batch_size, LIMITS.count)
    limits = BatchLimits(count, LIMITS.size, settings.schedule_delay)
    return LokiSink(url or default, limits=limits, **options)


def _file(settings: Settings, path: str) -> Sink[Any]:
    options = settings.file.model_dump()
    default = options.pop("path")
    if not path and default is None:
        msg = "'file' needs a path: file:/var/log/app.jsonl, or the option file.path"
        raise ConfigurationError(msg)
    return sinks.FileSink(str(path or default), **options)


_MAKERS: Final[Mapping[str, Callable[[Settings, str], Sink[Any]]]] = {
    "console": _console,
    "otlp": _otlp,
    "loki": _loki,
    "file": _file,
    "memory": lambda _settings, _argument: sinks.MemorySink(),
}


def _exporter(name: str) -> Sink[Any]:
    """Return a sink for the OpenTelemetry logs exporter whose entry point is ``name``."""
    points = {point.name: point for point in entry_points(group="opentelemetry_logs_exporter")}
    if name not in points:
        raise ConfigurationError(_unknown(name, points))
    try:
        exporter = points[name].load()()
    except Exception as error:
        msg = f"the exporter {name!r} cannot be made: {describe(error)}"
        raise ConfigurationError(msg) from error
    return sinks.ExporterSink(exporter, name=name)


def _unknown(name: str, exporters: Iterable[str]) -> str:
    """Return the error message about an unknown sink name, with a suggested correction.

    If ``name`` is a URL, the message shows only the URL's scheme, because the URL may contain a
    password.
    """
    kind, colon, _ = name.partition(":")
    known = [word.partition(":")[0] for word in _NAMES.split(", ") if " " not in word]
    near = closest(kind, [*known, *exporters])
    hint = f"did you mean {near!r}?" if near else f"use {_NAMES}"
    if colon and kind in ("http", "https"):
        hint = "for a URL write otlp:URL or loki:URL"
    elif "," in name:
        hint = "give several names as a list"
    elif kind.lower() in ("stdout", "stderr"):
        hint = f"did you mean {f'console:{kind.lower()}'!r}?"
    elif not colon and ("/" in name or Path(name).suffix):
        hint = f"did you mean {f'file:{name}'!r}?"
    elif colon and name.rpartition(":")[2].isdecimal():
        hint = "for an address write otlp:http://HOST:PORT"
    return f"{kind!r} is not known; {hint}"
