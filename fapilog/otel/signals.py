"""Spans and metrics at SIGTERM, for processes that ``opentelemetry-instrument`` runs.

The SDK delivers what it holds in ``atexit`` hooks, which a process that dies
of a signal does not run: every server by uvicorn ends so.  fapilog's handler
of SIGTERM delivers for the SDK too, and is there again when uvicorn looks.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import wrapt
from opentelemetry import metrics, trace

from fapilog.diagnostics import announce, describe
from fapilog.native import monotonic
from fapilog.process import exit as process_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

_UVICORN: Final = "uvicorn.server"


def deliver_on_sigterm() -> None:
    """Deliver spans and metrics where SIGTERM ends the process, and see to uvicorn.

    Does nothing where the application has a handler of its own.  Call it once.
    """
    process_exit.on_sigterm(flush_providers)
    wrapt.register_post_import_hook(_watch, _UVICORN)


def flush_providers(seconds: float) -> None:
    """Flush the global tracer and meter provider.  Blocks up to ``seconds``; never raises.

    Their own time limits are longer, so each is flushed on a thread, which
    goes on as long as the process does.
    """
    deadline = monotonic() + seconds
    threads = []
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        flush = getattr(provider, "force_flush", None)  # the API's own have none
        if flush is not None:
            threads.append(_started(flush, seconds))
    for thread in threads:
        if thread is not None:
            thread.join(max(deadline - monotonic(), 0.0))


def _started(flush: Callable[..., object], seconds: float) -> threading.Thread | None:
    thread = threading.Thread(
        target=_flush, args=(flush, seconds), name="fapilog-exit", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as error:
        announce("flush sdk", f"spans and metrics were not flushed: {describe(error)}")
        return None
    return thread


def _flush(flush: Callable[..., object], seconds: float) -> None:
    try:
        flush(timeout_millis=int(seconds * 1000))
    except Exception as error:  # noqa: BLE001 - any provider's code; announced
        announce("flush sdk", f"spans or metrics were not flushed: {describe(error)}")


def _watch(module: ModuleType) -> None:
    if hasattr(module.Server, "capture_signals"):  # since 0.29 it raises the signal again
        wrapt.wrap_function_wrapper(module, "Server.capture_signals", _with_handler)


def _with_handler(
    wrapped: Callable[..., Any], _server: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Install the handler that uvicorn is about to note, and will give the signal to in the end.

    In its workers under gunicorn there is none: they reset what they inherit.
    """
    process_exit.sigterm.resume()
    return wrapped(*args, **kwargs)
