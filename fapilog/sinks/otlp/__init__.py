"""The OTLP sink: one class, two transports, and the options of the specification.

``sink`` is what users name, ``http`` and ``grpc`` carry its requests,
``options`` reads arguments and ``OTEL_EXPORTER_OTLP_*`` variables.  Requests
are encoded by ``fapilog.otlp``.  Read ``sink`` first.
"""
