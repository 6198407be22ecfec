"""The demo's shop as a separate application, configured by OpenTelemetry's variables.

    pip install 'fapilog[demo]'
    OTEL_SERVICE_NAME=shop OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 \
        uvicorn examples.demo:app
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import fapilog
from fapilog.cli.demo.app import create_app

fapilog.configure()
fapilog.install_stdlib("info")

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Deliver all data before the server ends, because SIGTERM may end the process after that."""
    yield
    await asyncio.to_thread(provider.shutdown)
    await asyncio.to_thread(fapilog.flush, 5)


app = create_app(lifespan)
# Without its spans for every message of ASGI, which say nothing that the request's does not.
FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
