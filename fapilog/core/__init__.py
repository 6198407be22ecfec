"""The public import paths of earlier versions.

``observability`` contains the settings and the collector for Prometheus metrics.
Only applications import this package; it imports ``runtime``.
"""
