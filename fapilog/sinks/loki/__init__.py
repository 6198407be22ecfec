"""The Loki sink, which sends records to the push API of Grafana Loki.

``sink`` contains the public class, ``metadata`` decides which attributes become labels, ``lines``
writes the line of an entry, ``formats`` builds the push request, and ``options`` checks the user's
arguments.  Read ``sink`` first.
"""
