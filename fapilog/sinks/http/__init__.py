"""Contains the HTTP client of the OTLP and Loki sinks, with its options, proxies and TLS.

The module ``client`` posts one batch, ``transport`` opens the connections, and ``options``
checks the endpoint, the credentials and the certificates.  The module ``destination`` returns
a string that identifies a backend.  The spool, which stores unsent records on disk, compares
these strings, so that each record is sent only to the backend for which it was stored.  To learn
how a batch is sent, read ``client`` first.
"""
