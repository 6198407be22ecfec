"""HTTP for sinks: options, proxies, TLS, and requests that obey one deadline.

``client`` posts one batch, ``transport`` is the network layer below httpx, ``options``
checks the endpoint, credentials and certificates, and ``destination`` describes the
backend for the spool.  The sinks for OTLP and Loki import this package; it imports
``fapilog.otlp.classify``, which classifies answers, and no sink.  Read ``client`` first.
"""
