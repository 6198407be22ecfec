"""The pytest plugin of fapilog, with the fixture ``logs``.

This module is outside of the package and does not import fapilog when it is loaded,
because pytest imports plugins before coverage is measured.
PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fapilog.testing import CapturedLogs

#: The longest wait for an application's sinks in an invocation of a CliRunner, in seconds.
_PATIENCE: Final = 2.0
_SHOW: Final[pytest.StashKey[Callable[[], None]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``fapilog_caplog``."""
    words = "let the fixture caplog show fapilog's records, too"
    parser.addini("fapilog_caplog", words, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Replace the fixture ``caplog`` if the option ``fapilog_caplog`` is set."""
    if config.getini("fapilog_caplog"):
        config.pluginmanager.register(_Caplog(), "fapilog_caplog")


@pytest.fixture
def _fapilog_capture() -> Iterator[CapturedLogs]:
    from fapilog.testing import capture_logs  # noqa: PLC0415 - loads fapilog only when used

    with capture_logs() as captured:
        yield captured


@pytest.fixture
def logs(_fapilog_capture: CapturedLogs) -> CapturedLogs:
    """Capture the records of the test and of the application under test.

    :func:`fapilog.testing.capture_logs` describes the replacements during a capture.
    """
    return _fapilog_capture


class _Caplog:
    """The plugin behind the option ``fapilog_caplog``."""

    @pytest.fixture
    def caplog(
        self,
        caplog: pytest.LogCaptureFixture,
        _fapilog_capture: CapturedLogs,
        request: pytest.FixtureRequest,
    ) -> Iterator[pytest.LogCaptureFixture]:
        """Access and control log capturing, of ``logging`` and of fapilog."""
        from fapilog.testing import shown_in_caplog  # noqa: PLC0415 - as above

        with shown_in_caplog(_fapilog_capture, caplog) as show:
            request.node.stash[_SHOW] = show
            yield caplog

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Show the records in the report, even if the test does not read them."""
        yield
        item.stash.get(_SHOW, lambda: None)()


def pytest_runtest_setup() -> None:
    """Let each invocation of a command-line application keep its own lines."""
    for name in ("click.testing", "typer.testing"):
        runner = getattr(sys.modules.get(name), "CliRunner", None)
        if isinstance(runner, type):
            _keep_lines(runner)


def _keep_lines(runner: type) -> None:
    """Make the output streams of a ``CliRunner`` wait for fapilog's console before they flush.

    The runner flushes them before it reads the output of an invocation; later lines
    would appear in the output of the next invocation.
    """
    owner = next((kind for kind in runner.__mro__ if "isolation" in vars(kind)), runner)
    isolation: Any = getattr(owner, "isolation", None)
    if isolation is None or hasattr(isolation, "keeps_fapilog_lines"):
        return

    @contextlib.contextmanager
    @functools.wraps(isolation)
    def keeping(*args: Any, **options: Any) -> Iterator[Any]:
        with isolation(*args, **options) as streams:
            waits = [True]
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(AttributeError):  # the application's own object
                    stream.flush = functools.partial(_flush, waits, stream.flush)  # type: ignore[method-assign]
            yield streams

    keeping.keeps_fapilog_lines = True  # type: ignore[attr-defined]
    owner.isolation = keeping  # type: ignore[attr-defined]


def _flush(waits: list[bool], flush: Callable[[], None]) -> None:
    """Flush fapilog and then a stream, but do not wait twice for a sink that does not answer."""
    fapilog = sys.modules.get("fapilog")
    if fapilog is not None and waits[0]:
        waits[0] = fapilog.flush(_PATIENCE)
    flush()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the captured records to the report of a failing test."""
    outcome = yield
    report = outcome.get_result()
    captured = getattr(item, "funcargs", {}).get("logs")
    # The test may use another fixture with this name.
    if report.failed and report.when == "call" and type(captured).__name__ == "CapturedLogs":
        report.sections.append(("Captured fapilog records", str(captured)))
