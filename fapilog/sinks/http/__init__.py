"""What every sink needs that posts over HTTP: options, TLS, proxies, one deadline per request.

``client`` posts one batch, ``options`` says where to and as whom, ``deadline``
and ``connection`` are the transport beneath httpx.  Sinks for OTLP and Loki
import this package; it knows neither.  Read ``client`` first.
"""
