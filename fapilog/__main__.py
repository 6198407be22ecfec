"""Runs ``python -m fapilog``, which works even if the command ``fapilog`` is not on PATH."""

from __future__ import annotations

from fapilog.cli import main

if __name__ == "__main__":
    main()
