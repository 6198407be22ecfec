"""The machinery of options: their types, their sources, their checks and the errors about them.

This package knows no option by name; :class:`fapilog.settings.Settings` has the
names.  It imports only the data modules and ``fapilog.diagnostics``, and every
package above may import it.  ``sources`` reads the environment and the files,
``found`` decides how far to trust a file, ``explain`` writes the errors, and
``checks`` has the rules for arguments.  Read ``sources`` first.
"""
