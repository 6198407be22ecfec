"""Which severities are enabled for which logger name, changed while running.

Names are dotted; a name without a level of its own has its nearest parent's.
Loggers read one integer per call, so a change here is one assignment per
logger in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog.severity import INFO

if TYPE_CHECKING:
    from collections.abc import Mapping


class Levels:
    """Thresholds by logger name with inheritance.  Thread-safe for readers.

    Args:
        default: threshold of names without a level, a severity number.
        by_name: severity numbers by logger name.
    """

    def __init__(self, default: int = INFO, by_name: Mapping[str, int] | None = None) -> None:
        self._default = default
        self._by_name = dict(by_name or {})
        self._find_highest()

    def threshold(self, name: str) -> int:
        """Return the lowest severity number that is enabled for ``name``."""
        by_name = self._by_name
        while name:
            if name in by_name:
                return by_name[name]
            name = name.rpartition(".")[0]
        return self._default

    @property
    def lowest(self) -> int:
        """The lowest severity number that is enabled for any name."""
        return min(self._default, *self._by_name.values()) if self._by_name else self._default

    def set(self, name: str, threshold: int | None) -> None:
        """Set a name's threshold; None inherits again.  "" is the default."""
        if not name:
            self._default = INFO if threshold is None else threshold
        elif threshold is None:
            self._by_name = {k: v for k, v in self._by_name.items() if k != name}
        else:
            self._by_name = {**self._by_name, name: threshold}
        self._find_highest()

    def _find_highest(self) -> None:
        #: From here up every record of every name is enabled.
        self.highest = max(self._default, *self._by_name.values(), 0)
