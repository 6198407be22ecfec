"""Fields bound to the running context: ``with bind(request_id=...)``.

One context variable holds an immutable snapshot, so a record takes it with
one reference, asyncio tasks and copied contexts inherit it, and leaving a
block restores exactly what was bound before, exceptions included.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, Final, TypeVar, cast

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from fapilog.values import DEFAULT_LIMITS, snapshot_attributes

FuncT = TypeVar("FuncT", bound=Callable[..., Any])
ValueT = TypeVar("ValueT")

#: What is bound outside every block.
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
#: Bound on delivery threads: nothing logged there enters a pipeline, so a
#: sink that logs (or whose client library does) can never feed itself.
SUPPRESSED: Final[Mapping[str, Any]] = MappingProxyType({"fapilog.suppressed": True})

#: Names that one ``collect()`` notes at most, as many as a record has attributes.
MAX_COLLECTED: Final = DEFAULT_LIMITS.attributes

BOUND: Final[ContextVar[Mapping[str, Any]]] = ContextVar("fapilog_bound", default=EMPTY)


def reset_latest(variable: ContextVar[ValueT], tokens: list[Token[ValueT]]) -> None:
    """Undo the latest of the settings ``tokens`` that was made in this context.

    Threads and tasks may share one context manager and so its list of tokens;
    each has a context, and so tokens, of its own.  Where none is of this
    context - a generator closed by the garbage collector - nothing is undone.
    """
    for token in reversed(tokens.copy()):
        try:
            variable.reset(token)
        except (ValueError, RuntimeError):
            continue  # of another context; used, by a thread that has yet to take it out
        tokens.remove(token)
        return


@contextlib.contextmanager
def suppressed() -> Iterator[None]:
    """Keep what runs in the block from feeding itself.

    Neither log calls nor spans of an instrumented client library come out of
    it.  Delivery threads run in it as a whole.
    """
    bound = BOUND.set(SUPPRESSED)
    otel = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
    try:
        yield
    finally:
        detach(otel)
        BOUND.reset(bound)


class _Collection:
    """What one ``collect()`` block notes."""

    __slots__ = ("around", "fields", "is_open")

    def __init__(self, around: _Collection | None) -> None:
        self.fields: dict[str, Any] = {}
        self.is_open = True
        self.around = around

    def note(self, fields: Mapping[str, Any]) -> None:
        noted = self.fields
        for name, value in fields.items():
            if len(noted) < MAX_COLLECTED or name in noted:
                noted[name] = value

    def close(self) -> None:
        self.is_open = False
        self.fields = {}  # contexts that outlive the block hold this object


_COLLECTION: Final[ContextVar[_Collection | None]] = ContextVar("fapilog_collected", default=None)


def _collection() -> _Collection | None:
    """Return the innermost collection that has not ended."""
    found = _COLLECTION.get()
    while found is not None and not found.is_open:
        found = found.around
    return found


class collect:  # noqa: N801 - used as a function, as bind() is
    """Note the fields that :func:`bind` binds in the block, for whoever stands around it.

    What a handler binds is gone when the handler has returned; a middleware
    that collects still has it for the record it logs in the end.

    A context manager for one block: ``with collect() as fields``.  Fields is a
    dict that grows while the block lasts: of what is bound in this context, and
    in tasks and threads that copied it, the latest value of each name; the
    first 128 names.  The innermost ``collect()`` notes.  Does not block.

    Raises:
        RuntimeError: on entering, where it has been entered before.
    """

    __slots__ = ("_collection", "_token")

    def __init__(self) -> None:
        self._collection: _Collection | None = None

    def __enter__(self) -> dict[str, Any]:
        if self._collection is not None:
            msg = "collect() is for one block: call it again for another"
            raise RuntimeError(msg)
        self._collection = collection = _Collection(_collection())
        self._token = _COLLECTION.set(collection)
        return collection.fields

    def __exit__(self, *_: object) -> None:
        if self._collection is not None:
            self._collection.close()
        # Left in another context, by the garbage collector: there is nothing to reset.
        with contextlib.suppress(ValueError):
            _COLLECTION.reset(self._token)


class bind:  # noqa: N801 - used as a function: bind(...) as context manager and decorator
    """Bind fields to every record logged in this context.

    Works as a context manager and as a decorator of functions and coroutine
    functions.  Inner fields win over outer ones; a logger's own and a record's
    attributes win over both.  Does not block; safe in any thread and task.

    Args:
        **fields: attribute names and values.  Values are converted now:
            changing one later does not change the logs.

    Raises:
        TypeError: it decorates a generator function, whose fields would leak
            into the code that consumes it; use ``with bind(...)`` inside.
    """

    __slots__ = ("_fields", "_tokens")

    def __init__(self, /, **fields: Any) -> None:
        self._fields = snapshot_attributes(fields)
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> None:
        bound = BOUND.get()
        if bound is not SUPPRESSED:
            # Nobody changes what is bound, so the fields need no copy.
            bound = {**bound, **self._fields} if bound else self._fields
        self._tokens.append(BOUND.set(bound))
        if _COLLECTION.get() is not None and (collection := _collection()) is not None:
            collection.note(self._fields)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        reset_latest(BOUND, self._tokens)

    def __call__(self, function: FuncT) -> FuncT:
        """Return the function wrapped in the block."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            msg = f"bind() cannot decorate the generator {function.__qualname__}"
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
