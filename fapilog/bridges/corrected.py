"""Corrects records of ``logging`` whose attributes have wrong types.

Any library may change the attributes of a record, and ``logging.makeLogRecord``
accepts any values, such as values from a JSON document.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from fapilog.bridges.event import is_true
from fapilog.diagnostics import announce
from fapilog.values import plain_name, snapshot
from fapilog.values.exceptions import resolve
from fapilog.values.plain import INT64_MAX


class CorrectedRecord(logging.LogRecord):
    """A copy of a record whose attributes have the types that ``logging`` gives them.

    An invalid ``created`` becomes the current time.  An invalid ``levelno`` becomes the level
    that ``levelname`` names, or INFO if ``levelname`` is not the name of a level.  A message
    on stderr lists the invalid attributes.
    """

    __slots__ = ("_given",)

    def __init__(self, given: logging.LogRecord) -> None:
        super().__init__("", logging.INFO, "", 0, "", (), None)
        self._given = given
        fields, found = vars(self), vars(given)
        fields.update(found)
        fields.update(_corrected(fields))
        wrong = sorted(name for name in _PLAIN if fields[name] is not found.get(name, fields))
        announce(
            "stdlib",
            f"a record of logger {self.name!r} has no valid {', '.join(wrong)}; "
            "all its other values are logged",
        )

    def getMessage(self) -> str:  # noqa: N802 - the name in ``logging``
        """Return the message of the original record, whose class may override this method."""
        try:
            return self._given.getMessage()
        except Exception:  # noqa: BLE001 - the application's code, or an attribute is missing
            return super().getMessage()


_PLAIN: Final = vars(logging.LogRecord("", 0, "", 0, "", (), None))


def _corrected(fields: dict[str, Any]) -> dict[str, Any]:
    name, args, error = fields["name"], fields["args"], fields["exc_info"]
    exception = resolve(error)
    is_error = error is None or type(error) is tuple or error is exception
    texts = ("levelname", "pathname", "funcName", "exc_text", "stack_info")
    return {
        "name": name if isinstance(name, str) else plain_name(name),
        "levelno": _level(fields["levelno"], fields["levelname"]),
        "created": _time(fields["created"]),
        "args": args if type(args) in {tuple, dict} or not is_true(args) else (args,),
        "exc_info": error if is_error else exception and (type(exception), exception, None),
        **{text: _text(fields[text]) for text in texts},
    }


def _text(value: object) -> str | None:
    return value if value is None or type(value) is str else str(snapshot(value))


def _level(level: Any, name: object) -> int:
    try:
        return level if type(level) is int else int(level)
    except Exception:  # noqa: BLE001 - the class of the value may raise anything
        named = logging.getLevelName(str(_text(name)))
        return named if isinstance(named, int) else logging.INFO


def _time(created: Any) -> float:
    try:
        is_time = 0 <= int(created * 1e9) <= INT64_MAX
    except Exception:  # noqa: BLE001 - the class of the value may raise anything
        is_time = False
    return created if is_time else time.time()
