"""Contains the HTTP client of the OTLP and Loki sinks, with its options, proxies and TLS.

The module ``client`` posts one batch, ``transport`` opens the connections, and ``options``
checks the endpoint, the credentials and the certificates.  ``destination`` describes the
backend in a text.  The spool, which stores unsent records on disk, uses this text to send
each record only to its backend.  To learn how a batch is sent, read ``client`` first.
"""
