"""``fapilog demo``: a small shop, its customers, a receiver, and a report of what arrived.

``command`` is the entry, ``run`` wires the parts, ``app`` is the application,
``traffic`` its customers, ``verify`` checks what arrived and ``report`` prints it.
Needs the extra ``fapilog[demo]``.
"""
