"""``fapilog demo``: an application, its clients, a receiver, and a report.

``run`` connects the parts: ``app`` is the application, ``traffic`` sends requests to
it, ``verify`` checks the received data, and ``report`` prints the data.
Read ``run`` first.
"""
