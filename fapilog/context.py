"""Adds fields to all records that are logged in a ``with bind(request_id="7")`` block.

A ``ContextVar`` contains a mapping of the fields, so asyncio tasks and copied contexts inherit
the fields.  The mapping is replaced and never changed, so a record only needs a reference to it.
When the block ends, even with an exception, the ``ContextVar`` is reset to the earlier mapping.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from fapilog.diagnostics import announce
from fapilog.values import DEFAULT_LIMITS, plain_name, snapshot_attributes

FuncT = TypeVar("FuncT", bound=Callable[..., Any])
ValueT = TypeVar("ValueT")

#: The value of :data:`BOUND` while no fields are bound.
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
#: The value of :data:`BOUND` on the threads that send records to backends.  fapilog drops
#: records that are logged on these threads; otherwise sending a record could cause new records.
SUPPRESSED: Final[Mapping[str, Any]] = MappingProxyType({"fapilog.suppressed": True})

#: The largest number of fields that a ``collect()`` block collects.  It is equal to the default
#: limit for the attributes of a record.
MAX_COLLECTED: Final = DEFAULT_LIMITS.attributes

BOUND: Final[ContextVar[Mapping[str, Any]]] = ContextVar("fapilog_bound", default=EMPTY)


def reset_latest(variable: ContextVar[ValueT], tokens: list[Token[ValueT]]) -> None:
    """Undo the latest ``variable.set()`` of the current context whose token is in ``tokens``.

    ``tokens`` may contain tokens of several threads and tasks that use the same context manager.
    A token can be used only in the context in which it was created.  If ``tokens`` contains no
    token of the current context, nothing is reset.  This happens if the garbage collector closes
    a generator in another context.
    """
    for token in reversed(tokens.copy()):
        try:
            variable.reset(token)
        except (ValueError, RuntimeError):
            continue  # the token belongs to another context, or has already been used
        tokens.remove(token)
        return


def bind_context(**fields: Any) -> None:
    """Add fields to every record that is logged later in the current context.

    Use it where a ``with`` block does not fit, such as in a middleware's hook.  A task or
    a thread that copies the context inherits the fields; fields that are bound in the copy
    do not appear in the original context.  At the end of an enclosing ``with bind(...)``
    block, the fields from before the block are restored.  Does not block; may be used in any
    thread and task.

    Args:
        **fields: the names and values of the fields, as in :class:`bind`.
    """
    bound = BOUND.get()
    if bound is SUPPRESSED:
        return
    copies = snapshot_attributes(fields)
    BOUND.set({**bound, **copies})
    collection = _COLLECTION.get()
    if collection is not None:
        collection._note(copies)  # noqa: SLF001 - the class belongs to this module


def unbind_context(*names: str) -> None:
    """Remove bound fields from the current context.  Does not block.

    Names of fields that are not bound are ignored.
    """
    bound = BOUND.get()
    if bound is not SUPPRESSED:
        unwanted = {plain_name(name) for name in names}
        BOUND.set({name: value for name, value in bound.items() if name not in unwanted})


def clear_context() -> None:
    """Remove all bound fields from the current context.  Does not block.

    Call it at the start of each unit of work in a loop or in a reused thread, so that records
    do not contain fields of the previous unit.
    """
    if BOUND.get() is not SUPPRESSED:
        BOUND.set(EMPTY)


def announce_unentered(name: str, fix: str = "") -> None:
    """Report on stderr that a context manager was deleted but never used in a ``with`` block.

    Call it directly from ``__del__``, because the message names the line of code that runs two
    stack frames above this function, which is the line that deletes the object.

    Args:
        name: the name of the context manager's class, as the application writes it.
        fix: the end of the message, which names an alternative to a ``with`` block.
    """
    place = ""
    with contextlib.suppress(ValueError):  # at interpreter exit, __del__ has no calling frame
        frame = sys._getframe(2)  # noqa: SLF001 - documented; nothing else finds the caller
        place = f" near {frame.f_code.co_filename}:{frame.f_lineno}"
    announce(
        f"{name} unentered",
        f"a block was never entered, so it did nothing: {name}(...){place}; use "
        f"`with {name}(...):`{fix}",
    )


@contextlib.contextmanager
def suppressed() -> Iterator[None]:
    """Suppress all log records and spans that the code in the ``with`` block creates.

    The threads that send records run in such a block, so that an instrumented client library
    does not create telemetry about the requests that send telemetry.
    """
    bound = BOUND.set(SUPPRESSED)
    otel = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
    try:
        yield
    finally:
        detach(otel)
        BOUND.reset(bound)


class collect:  # noqa: N801 - used as a function, as bind() is
    """Collect the fields that :func:`bind` binds inside the ``with`` block.

    Fields that a request handler binds are unbound when the handler returns.  A middleware
    that collects these fields can add them to the record that it logs afterwards.

    Write ``with collect() as fields``; use each object for only one block.  ``fields`` is
    a dict that grows during the block.  It contains the latest value of each of
    the first 128 names that are bound in this context, and in tasks and threads
    that copied the context.  If blocks are nested, only the innermost block
    collects fields.  Does not block.

    Raises:
        RuntimeError: the same object is used for a second block.
    """

    __slots__ = ("_fields", "_token")

    def __init__(self) -> None:
        self._token: Token[collect | None] | None = None
        self._fields: dict[str, Any] | None = None  # None outside the block

    def __enter__(self) -> dict[str, Any]:
        if self._token is not None:
            msg = "a collect() object is for one block; call collect() again for another block"
            raise RuntimeError(msg)
        self._token = _COLLECTION.set(self)
        self._fields = {}
        return self._fields

    def __exit__(self, *_: object) -> None:
        self._fields = None  # release the dict, because a copied context may refer to this object
        # reset() raises a ValueError if the garbage collector ends the block in another context.
        with contextlib.suppress(ValueError):
            _COLLECTION.reset(cast("Token[collect | None]", self._token))

    def __del__(self) -> None:
        if getattr(self, "_token", False) is None:
            announce_unentered("collect")

    def _note(self, fields: Mapping[str, Any]) -> None:
        noted = self._fields
        if noted is None:  # the block has ended
            return
        for name, value in fields.items():
            if len(noted) < MAX_COLLECTED or name in noted:
                noted[name] = value


_COLLECTION: Final[ContextVar[collect | None]] = ContextVar("fapilog_collected", default=None)


class bind:  # noqa: N801 - used as a function: bind(...) as context manager and decorator
    """Add fields to every record that is logged in this context, inside a ``with`` block.

    Works as a context manager and as a decorator of functions and coroutine
    functions.  As a plain statement, ``bind(...)`` does nothing but write a message to stderr;
    use :func:`bind_context` if a block does not fit.  If names are equal, a field of an inner
    block overrides a field of an outer block, a field of the logger overrides fields of all
    blocks, and an attribute in a log call overrides all fields.  Does not block; may be used
    in any thread and task.

    Args:
        **fields: the names and values of the fields.  The values are copied immediately, so
            a later change of a value does not change the records.

    Raises:
        TypeError: the decorated function is a generator function.  The fields would
            also be bound in the code that iterates over it; use ``with bind(...)``
            inside the function.
    """

    __slots__ = ("_fields", "_is_used", "_tokens")

    def __init__(self, /, **fields: Any) -> None:
        self._is_used = False
        self._fields = snapshot_attributes(fields)
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> None:
        self._is_used = True
        bound = BOUND.get()
        if bound is not SUPPRESSED:
            # The mapping of fields is never changed, so a copy is not necessary.
            bound = {**bound, **self._fields} if bound else self._fields
        self._tokens.append(BOUND.set(bound))
        collection = _COLLECTION.get()
        if collection is not None:
            collection._note(self._fields)  # noqa: SLF001 - the two classes belong together

    def __exit__(self, *_: object) -> None:
        reset_latest(BOUND, self._tokens)

    def __del__(self) -> None:
        if not getattr(self, "_is_used", True):
            announce_unentered("bind", ", or bind_context(...) without a block")

    def __call__(self, function: FuncT) -> FuncT:
        """Return a function that calls ``function`` while the fields are bound."""
        self._is_used = True
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            msg = (
                f"bind() cannot decorate the generator {function.__qualname__}; use "
                "`with bind(...)` inside it"
            )
            raise TypeError(msg)
        fields = self._fields
        wrapper: Callable[..., Any]
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with bind(**fields):
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with bind(**fields):
                    return function(*args, **kwargs)

        return cast("FuncT", wrapper)
