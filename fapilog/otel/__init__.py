"""Connects fapilog with the Logs API and the SDK of OpenTelemetry.

OpenTelemetry records enter fapilog through ``provider``, which implements the Logs API, or through
``processor``, a log record processor for the SDK.  ``convert`` converts these records into
fapilog's records.  ``exporters`` makes fapilog's sinks usable as exporters of the SDK.
``resource`` detects the resource attributes of the process.  ``metrics`` reports the ledger as
metrics.  ``zero_code`` is loaded by the
command ``opentelemetry-instrument``.  In processes that this command has started, ``signals``
flushes the SDK at SIGTERM.  The encoders for OTLP are in ``fapilog.otlp``.  Read ``provider``
first.
"""
