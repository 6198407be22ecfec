"""The command line: ``fapilog config``, ``check``, ``demo``, ``receive`` and ``spool``.

At the top of the layers: it wires what the library offers and is imported by
nothing.  Needs the extra ``fapilog[cli]``; demo and receive need ``fapilog[demo]``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import typer

#: Exit code when an option or a variable is wrong, as for a wrong argument.
WRONG_USAGE: Final = 2
#: Exit code after Ctrl-C: 128 + SIGINT, as shells have it.
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: by default those of the process.

    Raises:
        SystemExit: always: 0 when the command did what it says, 1 when it
            found something wrong, 2 for a wrong option, 130 after Ctrl-C.
    """
    from fapilog.errors import ConfigurationError  # noqa: PLC0415 - not before it is needed

    try:
        with quiet_interrupt():
            app = make_app()
    except ModuleNotFoundError as error:
        _fail(1, f"the command line needs: pip install 'fapilog[cli]' ({error})")
    try:
        app(args=arguments, prog_name="fapilog")
    except ConfigurationError as error:
        _fail(WRONG_USAGE, str(error))
    except KeyboardInterrupt:  # outside of what typer catches
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk behind standard output, for example
        _fail(1, str(error))


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End the process at once on Ctrl-C, while modules load and nothing is under way yet.

    A KeyboardInterrupt would not do: some modules make errors of their own of it.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(code: int, message: str) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"fapilog: {line}\n")
    sys.exit(code)


def make_app() -> typer.Typer:
    """Return the application with its commands.

    Raises:
        ModuleNotFoundError: typer is not installed.
    """
    import typer  # noqa: PLC0415 - an extra

    from fapilog.cli.check import check  # noqa: PLC0415 - needs typer
    from fapilog.cli.config import config  # noqa: PLC0415 - as above
    from fapilog.cli.demo.command import demo  # noqa: PLC0415 - as above
    from fapilog.cli.receive import receive  # noqa: PLC0415 - as above

    app = typer.Typer(
        help="OpenTelemetry logging bridge: see what is configured, try it, watch it work.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False,
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ) -> None:
        """Take what stands before a command's name."""

    for command in (config, check, demo, receive):
        app.command()(command)
    app.add_typer(_make_spool_app(), name="spool")
    return app


def _make_spool_app() -> typer.Typer:
    import typer  # noqa: PLC0415 - an extra

    from fapilog.cli.spool.adopt import adopt  # noqa: PLC0415 - as above
    from fapilog.cli.spool.command import quarantine, status, verify  # noqa: PLC0415 - needs typer
    from fapilog.cli.spool.purge import purge  # noqa: PLC0415 - as above
    from fapilog.cli.spool.replay import replay  # noqa: PLC0415 - as above

    spool = typer.Typer(
        help="Show, check, send, move and delete the records that wait on disk.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for part in (status, verify, quarantine, replay, adopt, purge):
        spool.command()(part)
    return spool


def _print_version(wanted: bool) -> None:
    if wanted:
        from fapilog import __version__  # noqa: PLC0415 - for this option only

        sys.stdout.write(f"fapilog {__version__}\n")
        sys.exit(0)
