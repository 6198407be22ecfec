"""OpenTelemetry's own interfaces, in both directions.

Records enter fapilog through ``provider``, which implements the Logs API, and
through ``processor``, for an SDK provider; ``convert`` converts them.  ``exporters``
offers the sinks to an SDK.  ``resource`` finds the attributes of the process.
``opentelemetry-instrument`` loads ``zero_code``, and ``signals`` flushes the SDK at
SIGTERM.  The encoders are in ``fapilog.otlp``.  Read ``provider`` first.
"""
