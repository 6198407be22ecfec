"""OpenTelemetry's own interfaces, in both directions.

Records enter fapilog through ``provider``, which implements the Logs API, or through
``processor``, which an SDK's provider calls.  ``convert`` converts these records into
fapilog's records.  ``exporters`` wraps sinks as exporters for an SDK.  ``resource`` detects
the attributes of the process.  ``opentelemetry-instrument`` loads ``zero_code``, and
``signals`` flushes the SDK at SIGTERM.  The encoders are in ``fapilog.otlp``.  Read
``provider`` first.
"""
