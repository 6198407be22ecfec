"""Creates a sending queue for each sink, from the settings.

A sending queue connects a sink with its route, its fallback sink, its spool and its quarantine.
Wrong options raise an error when the queues are created, before the first record is logged.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.direct_queue import DirectQueue
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.route import Route
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.diagnostics import describe
from fapilog.errors import ConfigurationError
from fapilog.options.checks import absolute_path
from fapilog.protocols import BatchLimits, as_durable, credentials_of, destination_of
from fapilog.sinks.factory import (
    SPANS,
    make_sinks,
    name_sinks,
    sink_of,
    span_sink,
    wanted_sinks,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from pathlib import Path

    from fapilog.protocols import Sink
    from fapilog.record import Resource
    from fapilog.runtime.publisher import Publisher
    from fapilog.runtime.runtime import Runtime
    from fapilog.settings import Settings
    from fapilog.spool import Quarantine, Spool


def make_queues(
    settings: Settings, given: object = None, resource: Resource | None = None
) -> list[SendingQueue]:
    """Open all sinks and return one sending queue per sink, with fallback sinks at the end.

    Args:
        settings: the options, which also name the sinks if ``given`` is None.
        given: a sink, a sink's name, a route, or an iterable of these.
        resource: the resource with which the sinks check their options, or None.

    Raises:
        ConfigurationError: a sink, route or option is wrong; no sink stays open.
    """
    wanted = wanted_sinks(settings, given)
    routes = _with_fallbacks(settings, _routes(settings, wanted), wanted)
    shared = {id(route.fallback): route.fallback for route in routes if route.fallback is not None}
    routes += [Route(sink, level="off") for sink in shared.values()]
    named = name_sinks(settings, [route.sink for route in routes])
    ways = [
        (name, route, delivery_options(settings, name, route))
        for name, route in zip(named, routes, strict=True)
    ]
    if settings.overflow == "spill" and not any(options.spool for _, _, options in ways):
        msg = (
            f"{settings.place('overflow')}: 'spill' needs a sink with a spool: set "
            "spool.directory, not spool.mode=never, and use otlp or loki; or choose 'block'"
        )
        raise ConfigurationError(msg)
    directories = _spool_directories(settings, named.values())
    # make_sinks() opens the sinks.  It is called after all checks, so that no sink stays open if a
    # check fails.
    make_sinks(settings, named.values(), resource)
    if directories and settings.spool.directory is not None:
        from fapilog.spool import announce_strangers  # noqa: PLC0415 - only with a spool

        root = _root(settings.spool.directory)
        announce_strangers(root, directories | _span_directory(settings, root))
    queues: dict[int, SendingQueue] = {}
    for name, route, options in reversed(ways):  # create the queues of fallback sinks first
        queues[id(route.sink)] = SendingQueue(
            named[name],
            name=name,
            options=options,
            route=route,
            fallback=queues.get(id(route.fallback)),
        )
    return list(reversed(queues.values()))


def make_span_queue(settings: Settings, taken: Container[str] = ()) -> DirectQueue:
    """Open the sink of spans and return its queue.

    Args:
        settings: the options.
        taken: the names of the other sinks.  If ``traces`` is among them, the name of this sink
            ends with a number: ``traces-2``.

    Raises:
        ConfigurationError: a variable or option is wrong.
    """
    sink = span_sink(settings)
    name, number = sink.name, 2
    while name in taken:
        name, number = f"{sink.name}-{number}", number + 1
    sink.open()  # before the spool, because a later error would leave the spool open
    try:
        options = delivery_options(settings, name, Route(sink))
    except BaseException:
        sink.close()
        raise
    return DirectQueue(sink, name=name, options=options)


def make_publisher(runtime: Runtime) -> Publisher | None:
    """Return the publisher of the runtime's ledger; None without ``metrics_directory``.

    Raises:
        ConfigurationError: the directory cannot be used, or prometheus-client is not installed.
    """
    settings = runtime.settings
    if settings.metrics_directory is None:
        return None
    from fapilog.runtime.publisher import Publisher  # noqa: PLC0415 - only with the option
    from fapilog.runtime.shared_metrics import shared_in  # noqa: PLC0415 - only with the option

    try:
        return Publisher(runtime, shared_in(settings.metrics_directory))
    except (OSError, ImportError) as error:
        fix = "" if isinstance(error, OSError) else ": pip install 'fapilog[prometheus]'"
        msg = f"{settings.place('metrics_directory')}: {describe(error)}{fix}"
        raise ConfigurationError(msg) from None


def _routes(settings: Settings, wanted: Iterable[object]) -> list[Route]:
    """Return one ``Route`` per sink.

    ``wanted`` contains sinks, their names, and routes.  For a sink without a ``Route`` in
    ``wanted``, the route is created from the setting ``routes``, whose keys are names of sinks.
    """
    given = []
    for one in wanted:
        sink = _sink(one.sink if isinstance(one, Route) else one, settings)
        if sink is not None:
            given.append((one, sink))
    named = name_sinks(settings, [sink for _, sink in given])
    groups = dict(settings.routes)
    routes = []
    for name, (one, sink) in zip(named, given, strict=True):
        group = groups.pop(name, None)
        if isinstance(one, Route):  # a route in code overrides the setting
            routes.append(replace(one, sink=sink))
        else:
            routes.append(Route(sink, **(dict(group) if group else {})))
    if groups:
        msg = (
            f"{settings.place('routes')}: no sink is named {', '.join(sorted(groups))}; "
            f"the sinks are {', '.join(named)}"
        )
        raise ConfigurationError(msg)
    return routes


def _with_fallbacks(
    settings: Settings, routes: Iterable[Route], wanted: Iterable[object]
) -> list[Route]:
    """Create each fallback sink that routes name, once even if several routes name it.

    A sink in ``wanted`` cannot also be a fallback, because it would get records twice.
    """
    in_use = [one.sink if isinstance(one, Route) else one for one in wanted]
    made: dict[str, Any] = {}
    found = []
    for route in routes:
        fallback: Any = route.fallback
        if isinstance(fallback, str):
            if fallback in in_use:
                msg = (
                    f"fallback={fallback!r} of {route}: this sink is already in use and would "
                    "get records twice; use another sink"
                )
                raise ConfigurationError(msg)
            if fallback not in made:
                made[fallback] = _sink(fallback, settings)
            fallback = made[fallback]
        found.append(replace(route, fallback=fallback))
    return found


def _sink(one: Any, settings: Settings) -> Any:
    return sink_of(one, settings) if isinstance(one, str) else one


def _check(name: str, sink: Any) -> None:
    if not isinstance(sink.limits, BatchLimits):
        msg = f"limits of the sink {name!r}: give a BatchLimits"
        raise ConfigurationError(msg)
    concurrency = getattr(sink, "concurrency", 1)  # a custom sink may not define it
    if type(concurrency) is not int or concurrency < 1:
        msg = f"concurrency={concurrency!r} of the sink {name!r}: give an integer from 1 up"
        raise ConfigurationError(msg)


def delivery_options(settings: Settings, name: str, route: Route) -> DeliveryOptions:
    """Open the spool of the route's sink, if it uses a spool, and return the delivery options.

    Raises:
        ConfigurationError: the sink or its spool's directory cannot be used.
    """
    _check(name, route.sink)
    spool, quarantine = _disk(settings, name, route.sink)
    policy: Any = route.overflow or settings.sink_overflow
    if policy == "spill" and spool is None:
        if route.overflow or settings.spool.directory is None or settings.spool.mode == "never":
            msg = (
                f"overflow 'spill' of the sink {name!r} needs a spool: set spool.directory, not "
                "spool.mode=never, and use a sink whose records can be spooled (otlp, loki)"
            )
            raise ConfigurationError(msg)
        policy = None  # settings.sink_overflow applies to all sinks, but this sink has no spool
    return DeliveryOptions(
        capacity=settings.backlog_bytes,
        export_timeout=settings.export_timeout,
        retry=RetryPolicy(initial=settings.retry_initial, maximum=settings.retry_maximum),
        overflow=policy or ("spill" if spool else "drop_lowest"),
        block_timeout=settings.block_timeout,
        protect=int(settings.protect_level),
        spool=spool,
        spool_mode=settings.spool.mode,
        quarantine=quarantine,
    )


def _spool_directories(settings: Settings, sinks: Iterable[Sink[Any]]) -> set[str]:
    """Return the names of the directories that the sinks use inside ``spool.directory``.

    Raises:
        ConfigurationError: two different sinks would use the same directory.
    """
    found: dict[str, Any] = {}
    durables = filter(None, map(as_durable, sinks)) if settings.spool.directory else ()
    for sink in durables:
        from fapilog.spool import Owner  # noqa: PLC0415 - only with a spool

        owner = Owner(str(sink.name), sink.wire_format, destination_of(sink))
        other = found.setdefault(owner.directory, sink)
        # Two sinks may share a spool if all their options, including credentials, are equal.
        if other is not sink and getattr(other, "options", other) != getattr(sink, "options", sink):
            msg = (
                f"two sinks named {sink.name!r} send to the same destination, but with different "
                "options, and would share one spool; give each sink its own name"
            )
            raise ConfigurationError(msg)
    return set(found)


def _span_directory(settings: Settings, root: Path) -> set[str]:
    """Return the name of the directory of spans in the spool, if there may be one."""
    from fapilog.spool import Owner  # noqa: PLC0415 - only with a spool

    with suppress(ConfigurationError, OSError):  # spans may be disabled, or go elsewhere
        if any(path.name.startswith(SPANS) for path in root.iterdir()):
            sink = span_sink(settings)
            return {Owner(sink.name, sink.wire_format, sink.destination).directory}
    return set()


def _root(directory: Path) -> Path:
    return absolute_path("spool.directory", directory)


def _disk(settings: Settings, name: str, sink: Any) -> tuple[Spool | None, Quarantine | None]:
    """Open the spool of ``sink``, and return the spool and the quarantine; each may be None."""
    group = settings.spool
    durable = as_durable(sink)
    if durable is None or group.directory is None:
        return None, None
    from fapilog.spool import (  # noqa: PLC0415 - only with a spool
        Quarantine,
        Spool,
        SpoolOptions,
    )

    options = SpoolOptions(
        directory=_root(group.directory),
        max_bytes=group.max_bytes,
        min_free=group.min_free,
        segment_bytes=group.segment_bytes,
        sync=group.sync,
        sync_interval=group.sync_interval,
        quarantine_bytes=group.quarantine_bytes,
    )
    called = str(sink.name)
    more: dict[str, Any] = {
        "destination": destination_of(durable),
        "credentials": credentials_of(durable),
        "label": name,
    }
    quarantine = Quarantine(called, durable.wire_format, options, **more)
    if group.mode == "never":
        return None, quarantine
    spool = Spool(called, durable.wire_format, options, **more)
    spool.open()
    return spool, quarantine
