"""The Loki sink: streams, labels and structured metadata for Grafana Loki's push API.

``sink`` holds the class that users name, ``metadata`` decides which attributes become
labels, ``lines`` writes the line of an entry, ``formats`` the push request, and
``options`` checks what users pass.  It posts with ``fapilog.sinks.http``.  The sinks'
factory and ``fapilog.cli`` import it.  Read ``sink`` first.
"""
