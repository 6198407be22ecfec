"""The OTLP sink and its two transports, HTTP and gRPC.

``sink`` contains the public class, ``options`` reads its arguments and the
``OTEL_EXPORTER_OTLP_*`` variables, and ``grpc`` is the gRPC transport.  Read ``sink`` first.
"""
