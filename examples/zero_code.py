r"""A FastAPI application whose code uses neither fapilog nor OpenTelemetry.

    $ pip install fastapi uvicorn 'fapilog[auto]'
    $ opentelemetry-bootstrap -a install
    $ OTEL_PYTHON_DISTRO=fapilog OTEL_SERVICE_NAME=shop \
        opentelemetry-instrument uvicorn examples.zero_code:app

Its logs, spans and metrics go to http://localhost:4318, or to
OTEL_EXPORTER_OTLP_ENDPOINT if it is set.
"""

import logging

from fastapi import FastAPI

log = logging.getLogger("shop.orders")

app = FastAPI()


@app.get("/orders/{number}")
async def read_order(number: int) -> dict[str, int]:
    log.info("order read", extra={"order": number})
    return {"order": number}


@app.get("/login")
async def login(user: str) -> dict[str, str]:
    # Nobody should log a password; fapilog masks it before it leaves the process.
    log.warning("login of %s", user, extra={"password": "hunter2-open-sesame"})
    return {"user": user}
