"""Keeps handlers of other libraries from printing the records that a console sink prints.

Some libraries add handlers to loggers that print records.  After ``install_stdlib()`` the records
are also passed to a runtime.  If that runtime has a console sink, each record would be printed
twice.
"""

from __future__ import annotations

import logging
from typing import Final

from fapilog.bridges.feeds import Taken


class _NotShown(logging.Filter):
    """A filter that rejects records that a runtime with a console sink prints."""

    def filter(self, record: logging.LogRecord) -> bool:
        name = record.name
        return type(name) is not Taken or not any(
            getattr(target, "has_console", False) for target in name.by
        )


#: The filter for the handlers that print.
NOT_SHOWN: Final = _NotShown()
