"""``fapilog demo``: a small shop, its customers, a receiver, and a report of what arrived.

Start with ``command``, the entry point; ``run`` connects the parts.  ``app`` is
the application, ``traffic`` sends requests to it, ``verify`` checks the received
data, and ``report`` prints it.  Only the command line imports this package, which
needs the extra ``fapilog[demo]``.
"""
