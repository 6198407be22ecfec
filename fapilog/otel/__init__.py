"""OpenTelemetry's own interfaces, in both directions.

Into fapilog: ``provider`` implements the Logs API, ``processor`` joins an SDK
provider, ``convert`` turns their records into fapilog's, ``zero_code`` is what
``opentelemetry-instrument`` loads.  Out of it: ``exporters`` offers fapilog's
sinks to an SDK.  ``resource`` finds what describes the process.  The encoders
are in ``fapilog.otlp``.  Read ``provider`` first.
"""
