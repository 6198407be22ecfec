"""Delivers spans and metrics at SIGTERM, for processes of ``opentelemetry-instrument``.

The SDK delivers its spans and metrics in ``atexit`` hooks, which do not run when a
signal ends the process, for example a uvicorn server.  Therefore fapilog's SIGTERM
handler flushes the SDK too.
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
    """Deliver spans and metrics when SIGTERM ends the process, with uvicorn too.

    Does nothing if the application has its own handler.  Call it once.
    """
    process_exit.on_sigterm(flush_providers)
    wrapt.register_post_import_hook(_watch, _UVICORN)


def flush_providers(seconds: float) -> None:
    """Flush the global tracer and meter providers.  Blocks up to ``seconds``; never raises.

    A provider may take longer than ``seconds``, so each is flushed on its own
    thread, which may run until the process ends.
    """
    deadline = monotonic() + seconds
    threads = []
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        flush = getattr(provider, "force_flush", None)  # the API's own providers cannot flush
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
    if hasattr(module.Server, "capture_signals"):  # uvicorn 0.29 and later raise the signal again
        wrapt.wrap_function_wrapper(module, "Server.capture_signals", _with_handler)


def _with_handler(
    wrapped: Callable[..., Any], _server: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Install fapilog's handler now; uvicorn saves it and restores it to raise the signal again.

    uvicorn's workers under gunicorn have reset the inherited handler.
    """
    process_exit.sigterm.resume()
    return wrapped(*args, **kwargs)
