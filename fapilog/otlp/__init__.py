"""The OTLP wire: records as bytes, bytes as records, and the meaning of a backend's answer.

``encode`` and ``encode_json`` write requests, ``decode`` and ``decode_json`` read them
back from the spool, ``classify`` turns an answer into one of fapilog's errors.  Nothing
here sends or waits.  Sinks and the command line import this package; it imports
``fapilog.record``, ``fapilog.values`` and the contracts.  Read ``encode`` first.
"""
