"""OpenTelemetry's own interfaces, in both directions.

Records enter fapilog through ``provider``, which implements the Logs API, and
``processor``, for an SDK provider; ``convert`` converts them.  ``exporters``
offers the sinks to an SDK.  ``opentelemetry-instrument`` loads ``zero_code``.
``resource`` finds the attributes of the process.  The package uses bridges, sinks
and the runtime; the encoders are in ``fapilog.otlp``.  Read ``provider`` first.
"""
