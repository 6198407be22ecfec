"""The OTLP sink and its two transports, HTTP and gRPC.

``sink`` contains the public class, ``options`` reads its arguments and the
``OTEL_EXPORTER_OTLP_*`` variables, and ``grpc`` is the gRPC transport, an extra.  The sink
encodes requests with ``fapilog.otlp`` and posts them with ``fapilog.sinks.http``.  The
sinks' factory, ``fapilog.otel`` and ``fapilog.cli`` import it.  Read ``sink`` first.
"""
