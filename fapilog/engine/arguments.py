"""The arguments of a log call that mean what they mean in :mod:`logging`.

``LoggerCore.emit`` calls this module only for calls with positional arguments, with
one of the names in :data:`SPECIAL`, or with a value that needs a snapshot.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from fapilog.diagnostics import announce, kind_of
from fapilog.values import snapshot, snapshot_attributes
from fapilog.values.exceptions import Capture, Stack, resolve

if TYPE_CHECKING:
    from types import FrameType

#: The attribute for the message before formatting.  The semantic conventions have no name
#: for it; OpenTelemetry's instrumentation of Java's logging libraries uses this one.
TEMPLATE: Final = "log.body.template"
#: The names of keyword arguments that are not attributes.
SPECIAL: Final = frozenset({"exc_info", "extra", "stack_info", "stacklevel"})

# Without the space flag, because "50 % done" is usually text.
_PERCENT: Final = re.compile(
    r"%(?:\(\w*\))?[#0+-]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[hlL]?[diouxXeEfFgGcrsa%]"
)
_BRACES: Final = re.compile(r"\{\w*(?:[.\[][^{}]*)?(?:![rsa])?(?::[^{}]*(?:\{\w*\}[^{}]*)*)?\}")


class _Formatter(Formatter):
    """Formats ``{}``-style texts, but does not ignore an argument without a place."""

    def check_unused_args(
        self,
        used_args: set[int | str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],  # noqa: ARG002 - the interface of Formatter
    ) -> None:
        if not used_args.issuperset(range(len(args))):
            msg = "not all arguments have a place in the text"
            raise TypeError(msg)


class _Running(threading.local):
    """Whether this thread is formatting a message; its values may log in their ``__str__``."""

    value = False


_running: Final = _Running()


def format_message(
    message: Any, args: tuple[Any, ...], attributes: dict[str, Any], logger: str
) -> Any:
    """Return the message with its positional arguments, and add its template to ``attributes``.

    Formats as :mod:`logging` does, or with ``str.format`` if the text has ``{}`` and no
    ``%s``; then ``attributes`` fill its named fields.  If the arguments do not fit, this is
    announced, and the arguments fill the places in order or follow the text.  A message
    that is logged by an argument's ``__str__`` is not formatted, to prevent an endless
    recursion.  The caller's code must be three frames above this function.
    """
    if _running.value:
        return message
    _running.value = True
    try:
        template = message if type(message) is str else _text_of(message)
        attributes.setdefault(TEMPLATE, template)
        try:
            return _format(template, args, attributes)
        except Exception as error:  # noqa: BLE001 - user code, or arguments that do not fit
            announce(
                "arguments",
                f"the arguments of a log call of logger {logger!r:.100}{_place()} do not fit its "
                f"message ({kind_of(error)}); they are added to the text",
            )
            return _fill(template, args)
    finally:
        _running.value = False


def unpack(
    attributes: dict[str, Any],
) -> tuple[dict[str, Any], Capture | Stack | None, int]:
    """Return snapshots of the attributes, the exception or the stack, and the stack level.

    The caller's code must be three frames above this function.
    """
    if SPECIAL.isdisjoint(attributes):
        return snapshot_attributes(attributes), None, 1
    found = resolve(attributes.pop("exc_info", None))
    level = attributes.pop("stacklevel", 1)
    level = level if isinstance(level, int) else 1
    traces: Capture | Stack | None = None if found is None else Capture(found)
    if attributes.pop("stack_info", False):
        stack = Stack(caller(4, level))
        if isinstance(traces, Capture):
            traces.stack = stack
        else:
            traces = stack
    extra = attributes.get("extra")
    if extra is None or isinstance(extra, Mapping):
        attributes.pop("extra", None)
        attributes = {**(extra or {}), **attributes}
    return snapshot_attributes(attributes), traces, level


def caller(depth: int, level: int = 1) -> FrameType | None:
    """Return the frame of the code that logs, or of its callers if ``level`` is above 1.

    Args:
        depth: the number of frames between this function and the code that logs, plus 1.
        level: the argument ``stacklevel``; 2 stands for the caller of the code that logs.
    """
    try:
        frame = sys._getframe(depth)  # noqa: SLF001 - documented; nothing else finds the caller cheaply
    except ValueError:
        return None  # the interpreter itself made the call, for example at exit
    while level > 1 and frame.f_back is not None:
        frame, level = frame.f_back, level - 1
    return frame


def _format(text: str, args: tuple[Any, ...], attributes: Mapping[str, Any]) -> str:
    if _pattern(text) is _BRACES:
        return _Formatter().vformat(text, args, attributes)
    only = args[0] if len(args) == 1 else None
    return text % (only if only and isinstance(only, Mapping) else args)


def _pattern(text: str) -> re.Pattern[str]:
    """Return the pattern of the places in a text; ``%s`` goes before ``{}``, as in logging."""
    if any(place[0] != "%%" for place in _PERCENT.finditer(text)):
        return _PERCENT
    return _BRACES if _BRACES.search(text) else _PERCENT


def _fill(text: str, args: tuple[Any, ...]) -> str:
    """Put the arguments into the places of a text in order, and the others behind it.

    A value beside its name can be redacted; a list of arguments could not.
    """
    waiting = [_text_of(arg) for arg in reversed(args)]

    def value_of(place: re.Match[str]) -> str:
        if place[0] == "%%":
            return "%"
        return waiting.pop() if waiting else place[0]

    return " ".join((_pattern(text).sub(value_of, text), *reversed(waiting)))


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - user code; the snapshot shows the error
        return str(snapshot(value))


def _place() -> str:
    frame = caller(5)
    return "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"
