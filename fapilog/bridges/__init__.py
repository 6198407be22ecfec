"""Bridges: records of other libraries enter the pipeline with their own names and levels.

``stdlib``, ``structlog`` and ``loguru`` know one library each; ``hooks`` knows
warnings and uncaught exceptions.  ``feeds`` has the code that all bridges share,
``event`` makes records, and ``patching`` replaces functions of other libraries
and restores them.  Bridges import no runtime: the runtime gives them the target
of their records.  Users import a bridge by its module.  Read ``feeds`` first.
"""
