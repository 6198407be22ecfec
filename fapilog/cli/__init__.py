"""The command line: ``fapilog config``, ``check``, ``demo``, ``receive`` and ``spool``.

This package is the top layer: it may import all other packages, and only
``__main__`` imports it.  Each command is one module or one package with the
command's name; ``terminal`` writes the commands' output.  Read ``make_app`` below first.
The commands need the extra ``fapilog[cli]``; demo and receive need ``fapilog[demo]``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from fapilog.cli.interrupt import INTERRUPTED, WRONG_USAGE, quiet_interrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: the command-line arguments; None uses the arguments of the process.

    Raises:
        SystemExit: always: 0 on success, 1 if the command found a problem, 2 for
            a wrong option, and 130 after Ctrl-C.
    """
    from fapilog.errors import ConfigurationError  # noqa: PLC0415 - loaded only when needed

    try:
        with quiet_interrupt():
            app = make_app()
    except ModuleNotFoundError as error:
        _fail(1, f"the command line needs: pip install 'fapilog[cli]' ({error})")
    try:
        app(args=arguments, prog_name="fapilog")
    except ConfigurationError as error:
        _fail(WRONG_USAGE, str(error))
    except KeyboardInterrupt:  # raised where typer does not catch it
        sys.exit(INTERRUPTED)
    except OSError as error:  # for example, from standard output on a full disk
        _fail(1, str(error))


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
    from fapilog.cli.config import config  # noqa: PLC0415 - needs typer
    from fapilog.cli.demo.command import demo  # noqa: PLC0415 - needs typer
    from fapilog.cli.receive import receive  # noqa: PLC0415 - needs typer

    app = typer.Typer(
        help="OpenTelemetry logging bridge: show the configuration, test it, watch it work.",
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
        """Accept the options that precede a command's name."""

    for command in (config, check, demo, receive):
        app.command()(command)
    app.add_typer(_make_spool_app(), name="spool")
    return app


def _make_spool_app() -> typer.Typer:
    import typer  # noqa: PLC0415 - an extra

    from fapilog.cli.spool.adopt import adopt  # noqa: PLC0415 - needs typer
    from fapilog.cli.spool.command import quarantine, status, verify  # noqa: PLC0415 - needs typer
    from fapilog.cli.spool.purge import purge  # noqa: PLC0415 - needs typer
    from fapilog.cli.spool.replay import replay  # noqa: PLC0415 - needs typer

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
        from fapilog import __version__  # noqa: PLC0415 - needed by this option only

        sys.stdout.write(f"fapilog {__version__}\n")
        sys.exit(0)
