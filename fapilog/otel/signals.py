"""Exports spans and metrics at SIGTERM if ``opentelemetry-instrument`` started the process.

The SDK exports its last spans and metrics in ``atexit`` hooks, which do not run if a signal ends
the process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry import metrics, trace

from fapilog.diagnostics import announce, describe
from fapilog.native import monotonic
from fapilog.process import exit as process_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType


def deliver_on_sigterm() -> None:
    """Export spans and metrics if SIGTERM ends the process, even if uvicorn handles SIGTERM.

    Does nothing if the application has its own handler for SIGTERM.  Call this function only once.
    """
    process_exit.on_sigterm(flush_providers)
    process_exit.after_sigterm(flush_metrics)
    wrapt.register_post_import_hook(_watch, "uvicorn.server")


def flush_providers(seconds: float) -> None:
    """Flush the global tracer and meter providers.  Blocks up to ``seconds``; never raises."""
    _flush_all([trace.get_tracer_provider(), metrics.get_meter_provider()], seconds)


def flush_metrics(seconds: float) -> None:
    """Flush the global meter provider, so that the final numbers of fapilog's ledger are exported.

    Blocks up to ``seconds``; never raises.
    """
    _flush_all([metrics.get_meter_provider()], seconds)


def _flush_all(providers: Sequence[object], seconds: float) -> None:
    """Flush ``providers``.  Blocks up to ``seconds``; never raises.

    A provider may take longer than ``seconds``, so each provider is flushed on a separate thread,
    which may run until the process ends.
    """
    deadline = monotonic() + seconds
    threads = []
    for provider in providers:
        thread = threading.Thread(
            target=_flush, args=(provider, seconds), name="fapilog-exit", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            announce("flush sdk", f"spans and metrics were not flushed: {describe(error)}")
            break
        threads.append(thread)
    for thread in threads:
        thread.join(max(deadline - monotonic(), 0.0))


def _flush(provider: object, seconds: float) -> None:
    flush = getattr(provider, "force_flush", None)  # the API's default providers cannot flush
    try:
        if flush is not None:
            flush(timeout_millis=int(seconds * 1000))
    except Exception as error:  # noqa: BLE001 - any provider's code; announced
        announce("flush sdk", f"spans or metrics were not flushed: {describe(error)}")


def _watch(module: ModuleType) -> None:
    # Since version 0.29, uvicorn has this method, which raises the captured signals again after
    # the server has shut down.
    if hasattr(module.Server, "capture_signals"):
        wrapt.wrap_function_wrapper(module, "Server.capture_signals", _with_handler)


def _with_handler(
    wrapped: Callable[..., Any], _server: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Install fapilog's SIGTERM handler again, then call ``capture_signals``.

    If the process is a uvicorn worker of gunicorn, the worker has already reset the handler.
    ``capture_signals`` saves the installed handler, and restores it before uvicorn raises the
    signal again.
    """
    process_exit.sigterm.resume()
    return wrapped(*args, **kwargs)
