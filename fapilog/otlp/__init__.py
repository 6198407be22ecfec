"""The OTLP wire: records to bytes and back, and what a backend's answer means.

``encode`` and ``encode_json`` write requests, ``decode`` and ``decode_json``
read them back from the spool, ``classify`` maps an answer to one of fapilog's
errors.  Nothing here sends or waits.  Sinks, the command line and the SDK's
exporters import it.  Read ``encode`` first.
"""
