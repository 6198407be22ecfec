"""Bridges: how records of other libraries enter the pipeline, with their own names and levels.

``stdlib``, ``structlog`` and ``loguru`` each know one library, ``hooks`` knows
warnings and uncaught exceptions.  ``feeds`` holds what all of them share,
``event`` makes records, ``patching`` replaces foreign functions and puts them
back.  Users import the bridge modules by name.  Read ``feeds`` first.
"""
