"""Contains ``Runtime``, the object that connects loggers, a processing pipeline and sinks.

The module ``runtime`` defines the class, and ``wiring`` creates a queue for each sink from the
settings.  ``default`` manages the runtime that ``fapilog.configure()`` creates, ``callers``
detects packages that overwrite the application's configuration, and ``metrics`` exports
statistics to Prometheus.  The packages ``fapilog.engine`` and ``fapilog.sinks`` must not import
this package.  Read ``runtime`` first.
"""

import sys
from types import ModuleType
from typing import NoReturn


class _Package(ModuleType):
    """A module class that raises a TypeError if code calls ``fapilog.runtime()``.

    In fapilog 0.18, ``fapilog.runtime`` was a function.
    """

    def __call__(self, *_args: object, **_options: object) -> NoReturn:
        msg = (
            "fapilog.runtime is not a function; use fapilog.configure(...) and "
            "fapilog.get_logger(name), or `with fapilog.Runtime(...) as runtime:`"
        )
        raise TypeError(msg)


sys.modules[__name__].__class__ = _Package
