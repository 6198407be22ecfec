"""The OTLP wire format: encodes and decodes records, and classifies a backend's answers.

``encode`` and ``encode_json`` write requests, ``decode`` and ``decode_json`` read requests
from the spool, and ``classify`` turns an answer into one of fapilog's errors.  This package
never sends or waits.  Read ``encode`` first.
"""
