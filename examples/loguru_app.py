"""An application that uses loguru keeps ``from loguru import logger``; fapilog delivers.

    pip install fapilog loguru
    python examples/loguru_app.py

Records go to the console, or to OTEL_EXPORTER_OTLP_ENDPOINT if it is set.
"""

from loguru import logger
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import fapilog
from fapilog.bridges import loguru as bridge

fapilog.configure()
logger.remove()  # removes loguru's own output on stderr
bridge.install(code_attributes=True)
trace.set_tracer_provider(TracerProvider())


def place_order(item: str, quantity: int) -> None:
    with (
        trace.get_tracer("shop").start_as_current_span("place order"),
        logger.contextualize(item=item),
        logger.catch(message="order failed"),
    ):
        logger.info("order of {} received", quantity, quantity=quantity)
        # The token does not leave the process.
        logger.bind(card={"token": "tok-open-sesame"}).info("charging")
        logger.success("charged {amount:.2f}", amount=9.99 * quantity)
        if item == "piano":
            raise LookupError(f"no {item} in stock")


if __name__ == "__main__":
    place_order("teapot", 2)
    place_order("piano", 1)
    fapilog.shutdown()
