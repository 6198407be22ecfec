"""Runtimes, which ``configure()`` creates, and the default runtime of the process.

``runtime`` joins loggers, a pipeline and sinks; ``wiring`` turns settings and
sinks into sending queues; ``default`` holds the runtime that the functions of
``fapilog`` use; ``metrics`` shows a ledger to Prometheus.  ``fapilog``, ``cli``,
``core``, ``otel`` and ``testing`` import this package; the engine and the sinks
must not.  Read ``runtime`` first.
"""

import sys
from types import ModuleType
from typing import NoReturn


class _Package(ModuleType):
    """Raises an error with a hint if code calls ``runtime()``, a function in fapilog 0.18."""

    def __call__(self, *_args: object, **_options: object) -> NoReturn:
        msg = (
            "fapilog.runtime is not a function; use fapilog.configure(...) and "
            "fapilog.get_logger(name), or `with fapilog.Runtime(...) as runtime:`"
        )
        raise TypeError(msg)


sys.modules[__name__].__class__ = _Package
