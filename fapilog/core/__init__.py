"""Preserves an import path of earlier versions of fapilog: ``fapilog.core.observability``.

That module contains the settings and the collector for Prometheus metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:  # type checkers accept any name of a module that has a __getattr__

    def __getattr__(name: str) -> Any:
        from fapilog.renamed import module_attribute  # noqa: PLC0415 - only an error needs it

        raise module_attribute(__name__, name)
