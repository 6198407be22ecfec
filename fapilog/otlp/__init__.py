"""The OTLP wire format: encoding and decoding records, and classifying a backend's answers.

``encode`` and ``encode_json`` write requests, ``decode`` and ``decode_json`` read them
back from the spool, and ``classify`` turns an answer into one of fapilog's errors.  This
package never sends or waits.  Sinks and the command line import it; it imports
``fapilog.record``, ``fapilog.values`` and the contracts.  Read ``encode`` first.
"""
