"""Bridges: they bring log records of other libraries into the pipeline, with names and levels.

``stdlib``, ``structlog`` and ``loguru`` each serve one library; ``hooks`` serves
warnings and uncaught exceptions.  ``feeds`` finds the runtime that gets the records,
``event`` makes the records, and ``patching`` replaces functions of other libraries.
Bridges do not import the runtime; instead, the runtime sets ``feeds.default_target``.
Read ``feeds`` first.
"""
