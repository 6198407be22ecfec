"""``python -m fapilog`` runs the command line, even if the script ``fapilog`` is not on PATH."""

from __future__ import annotations

from fapilog.cli import main

if __name__ == "__main__":
    main()
