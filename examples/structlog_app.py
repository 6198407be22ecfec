"""An application that uses structlog keeps its interface and its processors; fapilog delivers.

    pip install fapilog structlog
    python examples/structlog_app.py

Records go to the console, or to OTEL_EXPORTER_OTLP_ENDPOINT if it is set.
"""

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import fapilog
from fapilog.bridges import structlog as bridge


def add_version(_logger: object, _method: str, event: dict[str, object]) -> dict[str, object]:
    """Add a field, as any processor of structlog may do."""
    return {**event, "shop.version": "1.2"}


fapilog.configure()
bridge.install(processors=[add_version])
trace.set_tracer_provider(TracerProvider())

log = structlog.get_logger("shop.orders")


def place_order(item: str, quantity: int) -> None:
    with trace.get_tracer("shop").start_as_current_span("place order"):
        structlog.contextvars.bind_contextvars(item=item)
        log.info("order received", quantity=quantity)
        try:
            charge({"owner": "ada", "token": "tok-open-sesame"})
        except TimeoutError:
            log.exception("payment failed")
        structlog.contextvars.clear_contextvars()


def charge(card: dict[str, str]) -> None:
    log.bind(card=card).info("charging")  # the token does not leave the process
    raise TimeoutError("the gateway did not answer")


if __name__ == "__main__":
    place_order("teapot", 2)
    fapilog.shutdown()
