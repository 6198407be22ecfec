"""The OTLP sink and its two transports, HTTP and gRPC.

``sink`` holds the class that users name, ``options`` reads its arguments and the
``OTEL_EXPORTER_OTLP_*`` variables, ``grpc`` is the transport that needs an extra.
It encodes requests with ``fapilog.otlp`` and posts them with ``fapilog.sinks.http``.  The
sinks' factory, ``fapilog.otel`` and ``fapilog.cli`` import it.  Read ``sink`` first.
"""
