"""Implements ``fapilog demo``, which runs a small web shop and shows its logs and traces.

The module ``run`` runs the demo: ``app`` is the shop, ``traffic`` sends requests to the shop,
``verify`` checks the logs and spans that a receiver got from the shop, and ``report`` prints
the results.  Read ``run`` first.
"""
