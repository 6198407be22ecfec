"""OpenTelemetry's own interfaces, in both directions.

Into fapilog: ``provider`` implements the Logs API, ``processor`` joins an SDK
provider, ``convert`` converts their records, and ``opentelemetry-instrument``
loads ``zero_code``.  Out of fapilog: ``exporters`` offers the sinks to an SDK.
``resource`` finds the attributes that describe the process.  The package uses
bridges, sinks and the runtime; the encoders are in ``fapilog.otlp``.  Read
``provider`` first.
"""
