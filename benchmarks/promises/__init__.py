"""Compares libraries in a burst, in an outage, at the end of a process, and with secrets."""
