"""Fields that are bound to the running context: ``with bind(request_id=...)``.

One context variable holds an immutable snapshot of the fields.  Therefore a record
needs only one reference, asyncio tasks and copied contexts inherit the fields, and
a block restores the earlier fields when it ends, even after an exception.
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

#: The bound fields when nothing is bound.
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
#: The value of :data:`BOUND` in delivery threads.  Records that are logged in these threads do
#: not enter a pipeline; otherwise a sink would send the records of its own client library.
SUPPRESSED: Final[Mapping[str, Any]] = MappingProxyType({"fapilog.suppressed": True})

#: The largest number of names in one ``collect()``: the default limit for attributes.
MAX_COLLECTED: Final = DEFAULT_LIMITS.attributes

BOUND: Final[ContextVar[Mapping[str, Any]]] = ContextVar("fapilog_bound", default=EMPTY)


def reset_latest(variable: ContextVar[ValueT], tokens: list[Token[ValueT]]) -> None:
    """Undo the latest ``variable.set()`` of the current context whose token is in ``tokens``.

    Threads and tasks that share a context manager share its list ``tokens``, but a token
    works only in the context that created it.  If no token works here (because the garbage
    collector closed a generator in another context), nothing is reset.
    """
    for token in reversed(tokens.copy()):
        try:
            variable.reset(token)
        except (ValueError, RuntimeError):
            continue  # a token of another context, or a token that another thread is removing
        tokens.remove(token)
        return


def bind_context(**fields: Any) -> None:
    """Bind fields to every later record of the running context, until they are unbound.

    Use it where a ``with`` block does not fit, such as in a middleware's hook.  A task or
    a thread that copies the context inherits the fields; fields that are bound in the copy
    do not appear in the original context.  At the end of an enclosing ``with bind(...)``
    block, the fields from before the block are restored.  Does not block; may be used in any
    thread and task.

    Args:
        **fields: the attributes by name, as in :class:`bind`.
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
    """Remove fields from the running context; unknown names are ignored.  Does not block."""
    bound = BOUND.get()
    if bound is not SUPPRESSED:
        unwanted = {plain_name(name) for name in names}
        BOUND.set({name: value for name, value in bound.items() if name not in unwanted})


def clear_context() -> None:
    """Remove all fields from the running context.  Does not block.

    Call it at the start of each unit of work in a loop or in a reused thread, so that the
    fields of the previous unit do not stay.
    """
    if BOUND.get() is not SUPPRESSED:
        BOUND.set(EMPTY)


def announce_unentered(name: str, fix: str = "") -> None:
    """Report that an object for a ``with`` block is deleted and was never entered.

    Call it from ``__del__``: the report shows the code that deletes the object, which must
    be two frames above this function.

    Args:
        name: the name of the class, as the application writes it.
        fix: the end of the message: what to write if a block does not fit.
    """
    place = ""
    with contextlib.suppress(ValueError):  # at interpreter exit, no Python code is above __del__
        frame = sys._getframe(2)  # noqa: SLF001 - documented; nothing else finds the caller
        place = f" near {frame.f_code.co_filename}:{frame.f_lineno}"
    announce(
        f"{name} unentered",
        f"a block was never entered, so it did nothing: {name}(...){place}; use "
        f"`with {name}(...):`{fix}",
    )


@contextlib.contextmanager
def suppressed() -> Iterator[None]:
    """Suppress the records and the spans of the code in the block.

    Delivery threads run in such a block, so an instrumented client library does
    not produce telemetry about the delivery of telemetry.
    """
    bound = BOUND.set(SUPPRESSED)
    otel = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
    try:
        yield
    finally:
        detach(otel)
        BOUND.reset(bound)


class collect:  # noqa: N801 - used as a function, as bind() is
    """Collect the fields that :func:`bind` binds inside the block.

    Fields that a request handler binds are unbound when the handler returns.  A middleware
    that collects these fields can add them to the record that it logs afterwards.

    A context manager for one block: ``with collect() as fields``.  ``fields`` is
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
        self._fields = None  # frees the fields; a copied context may keep this object alive
        # If the garbage collector ends the block in another context, nothing is reset.
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
    """Bind fields to every record that is logged in this context, inside a block.

    Works as a context manager and as a decorator of functions and coroutine
    functions.  As a plain statement, ``bind(...)`` does nothing and is announced on stderr
    (:func:`bind_context` needs no block).  The fields of an inner block win over those of an
    outer block; the fields of a logger and the attributes of a record win over both.  Does
    not block; may be used in any thread and task.

    Args:
        **fields: the attributes by name.  The values are copied immediately, so a
            later change of a value does not change the records.

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
            # The fields are never changed, so they need no copy.
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
        """Return a function that runs ``function`` inside the block."""
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
