"""Reads, checks and explains options; :class:`fapilog.settings.Settings` defines them.

The module ``sources`` reads the environment and configuration files, ``found`` decides whether
to trust a file, ``types`` and ``schema`` describe the options, ``explain`` creates the messages
about wrong options, ``checks`` contains rules for arguments, and ``arguments`` contains type
hints.  Read ``sources`` first.
"""
