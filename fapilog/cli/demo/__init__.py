"""``fapilog demo``: a small shop, its customers, a receiver, and a report of what arrived.

Read ``command`` first, which is the entry; ``run`` connects the parts.  ``app``
is the application, ``traffic`` makes its requests, ``verify`` checks what
arrived, and ``report`` prints it.  Only the command line imports this package,
which needs the extra ``fapilog[demo]``.
"""
