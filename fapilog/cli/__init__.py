"""The command-line program ``fapilog``.

The commands ``config``, ``check``, ``demo``, ``receive``, ``metrics`` and ``spool`` are each
implemented in a module or package of the same name.  The module ``app`` registers the commands,
and the module ``terminal`` writes their output.  The modules ``faults``, ``listener``,
``read_back`` and ``settings_lines`` belong to ``check``.  ``demo`` and ``receive`` need the extra
``fapilog[demo]``; the other commands need the extra ``fapilog[cli]``.  Read the module ``app``
first.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from fapilog.cli.interrupt import INTERRUPTED, WRONG_USAGE, quiet_interrupt
from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program ``fapilog`` with ``arguments``, or with ``sys.argv[1:]`` if they are None.

    Raises:
        SystemExit: always.  The exit code is 0 on success, 1 if the command found a problem,
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
    except KeyboardInterrupt:  # typer handles Ctrl-C only while a command runs, not before
        sys.exit(INTERRUPTED)
    except OSError as error:  # for example, standard output is a file on a full disk
        _fail(1, str(error))


def _fail(code: int, message: str) -> NoReturn:
    for line in message.splitlines():
        sys.stderr.write(f"fapilog: {line}\n")
    sys.exit(code)
