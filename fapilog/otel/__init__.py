"""OpenTelemetry's own interfaces, in both directions.

Records enter fapilog through ``provider``, which implements the Logs API, and
``processor``, which is added to an SDK provider; ``convert`` converts them.
``opentelemetry-instrument`` loads ``zero_code``.  In the other direction,
``exporters`` offers the sinks to an SDK.  ``resource`` finds the attributes that
describe the process.  The package uses bridges, sinks and the runtime; the
encoders are in ``fapilog.otlp``.  Read ``provider`` first.
"""
