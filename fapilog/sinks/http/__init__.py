"""HTTP for sinks: options, proxies, TLS, and requests that obey one deadline.

``client`` posts one batch, ``transport`` is the network below httpx, ``options`` holds the
endpoint, credentials and certificates, ``destination`` describes the backend for the
spool.  The sinks for OTLP and Loki import this package; it imports the meaning of answers
from ``fapilog.otlp.classify`` and no sink.  Read ``client`` first.
"""
