"""``fapilog demo``: an application, its clients, a receiver, and a report.

``run`` connects the modules: ``app`` is the application, ``traffic`` sends requests to
the application, ``verify`` checks the received data, and ``report`` prints the results.
Read ``run`` first.
"""
