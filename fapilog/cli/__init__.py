"""The command line: ``fapilog config``, ``check``, ``demo``, ``receive`` and ``spool``.

Each command is one module or one package with the command's name; ``app`` collects
the commands, and ``terminal`` writes their output.  The commands need the extra
``fapilog[cli]``, but demo and receive need ``fapilog[demo]``, which includes it.  Read
``app`` first.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from fapilog.cli.interrupt import INTERRUPTED, WRONG_USAGE, quiet_interrupt
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with ``arguments``.  If they are None, use those of the process.

    Raises:
        SystemExit: always.  Its code is 0 on success, 1 if the command found a problem,
            2 for a wrong option, and 130 after Ctrl-C.
    """
    try:
        with quiet_interrupt():
            from fapilog.cli.app import app  # noqa: PLC0415 - needs typer, an extra
    except ModuleNotFoundError as error:
        _fail(1, f"the command line needs: pip install 'fapilog[cli]' ({error})")
    try:
        app(args=arguments, prog_name="fapilog")
    except ConfigurationError as error:
        _fail(WRONG_USAGE, str(error))
    except KeyboardInterrupt:  # typer handles Ctrl-C only while a command runs
        sys.exit(INTERRUPTED)
    except OSError as error:  # for example, standard output is a file on a full disk
        _fail(1, str(error))


def _fail(code: int, message: str) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"fapilog: {line}\n")
    sys.exit(code)
