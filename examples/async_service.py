"""An asynchronous service without a web framework: each job has its own span and context.

    pip install fapilog opentelemetry-exporter-otlp-proto-http
    python examples/async_service.py [JOBS]

Records go to the console, or to OTEL_EXPORTER_OTLP_ENDPOINT if it is set; spans
go there too.  Ctrl-C and SIGTERM end the service after all records are delivered.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import fapilog

log = fapilog.get_async_logger("mailer")
tracer = trace.get_tracer("mailer")


async def send(address: str) -> None:
    await asyncio.sleep(random.random() / 50)
    if address.endswith(".invalid"):
        raise ConnectionError(f"no mail server for {address}")
    await log.info("mail sent", to=address)


async def work(name: str, jobs: "asyncio.Queue[tuple[int, str]]") -> None:
    with fapilog.bind(worker=name):  # on every record of this task
        while True:
            number, address = await jobs.get()
            with tracer.start_as_current_span("job"), fapilog.bind(job=number):
                try:
                    await send(address)
                except ConnectionError:
                    await log.exception("mail failed")
            jobs.task_done()


async def serve(count: int) -> None:
    """Process jobs until none is left, or until a signal asks the process to end."""
    jobs: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    for number in range(count):
        jobs.put_nowait((number, "bob@example.com" if number % 5 else "ada@example.invalid"))
    asked = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
    workers = [asyncio.create_task(work(f"w{n}", jobs)) for n in range(3)]
    done = asyncio.create_task(jobs.join())
    stopped = asyncio.create_task(asked.wait())
    await asyncio.wait({done, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (*workers, done, stopped):
        task.cancel()
    await log.info("stopped", left=jobs.qsize())


def main() -> None:
    fapilog.configure()
    provider = TracerProvider()
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    asyncio.run(serve(count=int(sys.argv[1]) if len(sys.argv) > 1 else 10))
    provider.shutdown()
    fapilog.shutdown()


if __name__ == "__main__":
    main()
