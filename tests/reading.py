"""Prints docstrings and comments drawn at random, for a reader: ``python -m tests.reading``.

The same seed and count print the same fragments of the same sources.  Consecutive
lines of comment are one fragment; directives to tools are left out.  Each fragment is
printed with the code that it stands beside: the first line of the function or class,
or the line with the comment, or the line after it.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DIRECTIVE = re.compile(r"#+:?\s*(noqa|type:|pragma|nosec|fmt:|ruff:|mypy:|pyright:|!)")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Fragment(NamedTuple):
    """A docstring, or a comment of one or more lines."""

    path: Path
    line: int
    code: str
    text: str


def signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the ``class`` or ``def`` of a node, without its body, on one line."""
    return ast.unparse(node).partition('"""')[0].split(":\n")[0].replace("\n", " ") + ":"


def docstrings_in(path: Path, source: str) -> Iterator[Fragment]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            code = "" if isinstance(node, ast.Module) else signature(node)
            yield Fragment(path, node.body[0].lineno, code, text)


def comments_in(path: Path, source: str) -> Iterator[Fragment]:
    lines: list[str] = []
    last = (0, 0)
    sources = source.splitlines()

    def fragment() -> Fragment:
        row = last[0]
        beside = sources[row - 1].strip()
        if beside.startswith("#"):
            beside = next((line.strip() for line in sources[row:] if line.strip()), "")
        return Fragment(path, row - len(lines) + 1, beside, "\n".join(lines))

    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        row, column = token.start
        is_whole_line = not token.line[:column].strip()
        if lines and (not is_whole_line or (row, column) != (last[0] + 1, last[1])):
            yield fragment()
            lines = []
        lines.append(re.sub(r"^#:? ?", "", token.string))
        last = (row, column)
    if lines:
        yield fragment()


def fragments(*directories: Path) -> Iterator[Fragment]:
    """Yield every docstring and comment in the Python files of the directories.

    Hidden directories, such as the environments of benchmarks, are not read.
    """
    for path in sorted(path for directory in directories for path in directory.rglob("*.py")):
        if any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            continue
        source = path.read_text(encoding="utf-8")
        yield from docstrings_in(path, source)
        yield from comments_in(path, source)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reading")
    parser.add_argument("--seed", type=int, default=1, help="which fragments are drawn")
    parser.add_argument("--count", type=int, default=120, help="how many fragments are drawn")
    options = parser.parse_args()
    found = list(fragments(ROOT / "fapilog", ROOT / "integrations"))
    drawn = random.Random(options.seed).sample(found, min(options.count, len(found)))
    print(f"{len(drawn)} of {len(found)} docstrings and comments, seed {options.seed}")
    for number, (path, line, code, text) in enumerate(drawn, 1):
        print(f"\n{number}. {path.relative_to(ROOT)}:{line}  {textwrap.shorten(code, 100)}")
        print(textwrap.indent(text, "    "))


if __name__ == "__main__":
    main()
