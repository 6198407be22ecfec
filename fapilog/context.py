"""Fields that are bound to the running context: ``with bind(request_id=...)``.

One context variable holds an immutable snapshot of the fields.  Therefore a record
needs only one reference, asyncio tasks and copied contexts inherit the fields, and
the end of a block restores the earlier fields, even after an exception.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from fapilog.values import DEFAULT_LIMITS, snapshot_attributes

FuncT = TypeVar("FuncT", bound=Callable[..., Any])
ValueT = TypeVar("ValueT")

#: The fields outside every block.
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
#: Marks delivery threads.  Records that are logged in these threads do not enter a
#: pipeline; otherwise a sink would send the records of its own client library.
SUPPRESSED: Final[Mapping[str, Any]] = MappingProxyType({"fapilog.suppressed": True})

#: The largest number of names in one ``collect()``: the default limit for attributes.
MAX_COLLECTED: Final = DEFAULT_LIMITS.attributes

BOUND: Final[ContextVar[Mapping[str, Any]]] = ContextVar("fapilog_bound", default=EMPTY)


def reset_latest(variable: ContextVar[ValueT], tokens: list[Token[ValueT]]) -> None:
    """Reset ``variable`` with the latest of the ``tokens`` that belong to this context.

    Threads and tasks that share a context manager share its list of tokens, but each
    has its own context.  If no token belongs to this context (because the garbage
    collector closed a generator), nothing is reset.
    """
    for token in reversed(tokens.copy()):
        try:
            variable.reset(token)
        except (ValueError, RuntimeError):
            continue  # a token of another context, or a token that another thread is removing
        tokens.remove(token)
        return


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

    Fields that a handler binds are unbound when it returns.  A middleware that
    collects these fields can add them to the record that it logs afterwards.

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
        self._fields = None  # copied contexts keep this object, but not the fields
        # If the garbage collector ends the block in another context, nothing is reset.
        with contextlib.suppress(ValueError):
            _COLLECTION.reset(cast("Token[collect | None]", self._token))

    def _note(self, fields: Mapping[str, Any]) -> None:
        noted = self._fields
        if noted is None:  # the block has ended
            return
        for name, value in fields.items():
            if len(noted) < MAX_COLLECTED or name in noted:
                noted[name] = value


_COLLECTION: Final[ContextVar[collect | None]] = ContextVar("fapilog_collected", default=None)


class bind:  # noqa: N801 - used as a function: bind(...) as context manager and decorator
    """Bind fields to every record that is logged in this context.

    Works as a context manager and as a decorator of functions and coroutine
    functions.  Inner fields win over outer ones; the fields of a logger and the
    attributes of a record win over both.  Does not block; may be used in any
    thread and task.

    Args:
        **fields: the attributes by name.  The values are copied immediately, so a
            later change of a value does not change the records.

    Raises:
        TypeError: the decorated function is a generator function.  The fields would
            also be bound in the code that iterates over it; use ``with bind(...)``
            inside the function.
    """

    __slots__ = ("_fields", "_tokens")

    def __init__(self, /, **fields: Any) -> None:
        self._fields = snapshot_attributes(fields)
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> None:
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

    def __call__(self, function: FuncT) -> FuncT:
        """Return a function that runs ``function`` inside the block."""
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
