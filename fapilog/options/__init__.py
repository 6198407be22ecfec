"""The machinery of options: their types, sources and checks, and the errors about them.

:class:`fapilog.settings.Settings` defines the options; this package contains no
option's name.  It imports only the data modules and ``fapilog.diagnostics``, and
every package above may import it.  ``sources`` reads the environment and the files,
``found`` decides how far to trust a file, ``explain`` writes the errors, and
``checks`` contains the rules for arguments.  Read ``sources`` first.
"""
