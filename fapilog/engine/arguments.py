"""Handles arguments of a log call that :mod:`logging` also has, such as ``exc_info``.

For speed, ``LoggerCore.emit`` calls this module only if a call has positional arguments after
the message, a keyword argument in :data:`SPECIAL`, or a value that must be copied, because it
is mutable or large.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from fapilog.diagnostics import announce, kind_of
from fapilog.values import SCALARS, snapshot, snapshot_attributes
from fapilog.values.exceptions import Capture, Stack, resolve

if TYPE_CHECKING:
    from types import FrameType

#: The attribute that stores the message before formatting.  OpenTelemetry's semantic conventions
#: define no attribute for this; its instrumentation of Java's logging libraries uses this name.
TEMPLATE: Final = "log.body.template"
#: The keyword arguments of a log call that do not become attributes of the record.
SPECIAL: Final = frozenset({"exc_info", "extra", "stack_info", "stacklevel"})

# Matches the placeholders of %-formatting, except those with the space flag, such as "% d",
# because "50 % done" is usually plain text.
_PERCENT: Final = re.compile(
    r"%(?:\(\w*\))?[#0+-]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[hlL]?[diouxXeEfFgGcrsa%]"
)
_BRACES: Final = re.compile(r"\{\w*(?:[.\[][^{}]*)?(?:![rsa])?(?::[^{}]*(?:\{\w*\}[^{}]*)*)?\}")


class _Formatter(Formatter):
    """Formats strings as ``str.format`` does, and raises TypeError if an argument is not used."""

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
    """Stores for each thread whether it is formatting a message: ``value`` is then True.

    The ``__str__`` of an argument may log.  That inner message is formatted only if its arguments
    are simple values, because other arguments could lead to an endless recursion.
    """

    value = False


_running: Final = _Running()


def format_message(
    message: Any, args: tuple[Any, ...], attributes: dict[str, Any], logger: str
) -> Any:
    """Return the formatted message, and store the unformatted text in ``attributes``.

    Formats as :mod:`logging` does.  A string that contains ``{}`` and no ``%s`` is formatted with
    ``str.format`` instead, which gets ``attributes`` as keyword arguments.  If the arguments do
    not fit the text, a message on stderr reports this.  The arguments then replace the
    placeholders in order, and surplus arguments are appended.  If the ``__str__`` of an
    argument logs, that inner message is formatted only if its arguments are simple values, to
    prevent an endless recursion.

    ``logger`` is the logger's name.  The message on stderr contains this name and the line of
    the application's code, which must be three frames above this function.
    """
    was_running = _running.value
    if was_running and not _are_simple((*args, *attributes.values())):
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
        _running.value = was_running


def unpack(
    attributes: dict[str, Any],
) -> tuple[dict[str, Any], Capture | Stack | None, int]:
    """Separate the arguments in :data:`SPECIAL` from the attributes of a log call.

    Returns copies of the attributes (including those in ``extra``), the exception or the call
    stack to log (or None), and the ``stacklevel``.  The application's code must be three frames
    above this function, because the call stack starts there.
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
    """Return the frame of the code that made the log call, or the frame of one of its callers.

    Returns None if no Python code made the log call.

    Args:
        depth: the number of frames from this function up to the code that made the log call; 1
            is the function that calls this function.
        level: the argument ``stacklevel`` of the log call: 1 is the code that made the call, 2
            is its caller.
    """
    try:
        frame = sys._getframe(depth)  # noqa: SLF001 - documented; nothing else finds the caller cheaply
    except ValueError:
        return None  # the interpreter itself made the log call, for example at exit
    while level > 1 and frame.f_back is not None:
        frame, level = frame.f_back, level - 1
    return frame


def _are_simple(values: tuple[Any, ...]) -> bool:
    """Return whether formatting ``values`` cannot run code of the application."""
    return all(type(value) in SCALARS for value in values)


def _format(text: str, args: tuple[Any, ...], attributes: Mapping[str, Any]) -> str:
    if _pattern(text) is _BRACES:
        return _Formatter().vformat(text, args, attributes)
    only = args[0] if len(args) == 1 else None
    return text % (only if only and isinstance(only, Mapping) else args)


def _pattern(text: str) -> re.Pattern[str]:
    """Return ``_BRACES`` if ``text`` has ``{}`` and no ``%s`` placeholder, else ``_PERCENT``."""
    if any(place[0] != "%%" for place in _PERCENT.finditer(text)):
        return _PERCENT
    return _BRACES if _BRACES.search(text) else _PERCENT


def _fill(text: str, args: tuple[Any, ...]) -> str:
    """Replace the placeholders of ``text`` in order, and append the remaining arguments.

    Only the surplus arguments are appended, because the redactor recognises the secret in
    ``password=%s`` only if the value directly follows the name.
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
