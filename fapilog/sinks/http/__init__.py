"""HTTP for the OTLP and Loki sinks: options, proxies, TLS, and requests with a deadline.

``client`` posts one batch, ``transport`` makes its connections, ``options`` checks the
endpoint, credentials and certificates, and ``destination`` describes the backend, so that the
spool can keep each backend's records apart.  Read ``client`` first.
"""
