"""``python -m fapilog``: the command line, where the script ``fapilog`` is not on the path."""

from __future__ import annotations

from fapilog.cli import main

if __name__ == "__main__":
    main()
