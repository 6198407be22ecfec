"""The Loki sink: streams, labels and structured metadata for Grafana Loki's push API.

``sink`` is what users name, ``metadata`` decides what becomes a label,
``lines`` writes the line, ``formats`` the push, ``options`` checks what users
pass.  Read ``sink`` first.
"""
