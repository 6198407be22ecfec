"""Bridges: records of other libraries enter the pipeline with their own names and levels.

``stdlib``, ``structlog`` and ``loguru`` each serve one library; ``hooks`` serves
warnings and uncaught exceptions.  ``feeds`` contains the code that all bridges share,
``event`` makes records, and ``patching`` replaces functions of other libraries
and restores them.  Bridges do not import the runtime: the runtime gives them the
target of their records.  Users import a bridge by its module.  Read ``feeds`` first.
"""
