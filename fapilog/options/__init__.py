"""Reads, checks and explains options; :class:`fapilog.settings.Settings` defines them.

``sources`` reads the environment and the files, ``found`` decides whether to trust a
file, ``types`` and ``schema`` describe options, ``explain`` writes the errors about
them, and ``checks`` contains the rules for arguments.  Read ``sources`` first.
"""
