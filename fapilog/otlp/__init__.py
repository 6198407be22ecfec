"""Encodes and decodes OTLP requests, and classifies the answers of backends.

``encode`` and ``encode_json`` write requests, ``decode`` and ``decode_json`` read requests that
fapilog has stored on disk, and ``classify`` turns an answer into an ``Outcome`` or an error.  This
package never sends or waits.  Read ``encode`` first.
"""
