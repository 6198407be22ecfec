"""Bridges: records of other libraries enter the pipeline with their own names and levels.

``stdlib``, ``structlog`` and ``loguru`` each serve one library; ``hooks`` serves
warnings and uncaught exceptions.  ``feeds`` finds the target of the records, ``event``
makes the records, and ``patching`` replaces functions of other libraries.  Bridges do
not import the runtime, which sets ``feeds.default_target``.  Read ``feeds`` first.
"""
