"""Prints docstrings and comments drawn at random, for a reader: ``python -m tests.reading``.

The same seed and count print the same fragments of the same sources.  Consecutive
lines of comment are one fragment; directives to tools are left out.  Each fragment is
printed with what a reader of the code sees around it: the names of the enclosing
classes and functions, and a docstring's signature, or the lines next to a comment.
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
DEFINED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: The number of lines that are printed before and after a comment.
AROUND = 4


class Fragment(NamedTuple):
    """A docstring, or a comment of one or more lines."""

    path: Path
    line: int
    inside: str  # the enclosing classes and functions: Class.method
    text: str
    shown: str  # the text with the code around it


def signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the ``class`` or ``def`` of a node, without its body, on one line."""
    return ast.unparse(node).partition('"""')[0].split(":\n")[0].replace("\n", " ") + ":"


def names_at(tree: ast.Module, row: int) -> str:
    """Return the names of the classes and functions that contain a row."""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, DEFINED) and node.lineno <= row <= (node.end_lineno or 0)
    ]
    return ".".join(node.name for node in sorted(around, key=lambda node: node.lineno))


def docstrings_in(path: Path, source: str) -> Iterator[Fragment]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINED)) and (text := ast.get_docstring(node)):
            row = node.body[0].lineno
            above = "" if isinstance(node, ast.Module) else f"{signature(node)}\n"
            inside = "" if isinstance(node, ast.Module) else names_at(tree, row)
            shown = above + textwrap.indent(text, "    ")
            yield Fragment(path, row, inside, text, shown)


def comments_in(path: Path, source: str) -> Iterator[Fragment]:
    tree, lines = ast.parse(source), source.splitlines()
    rows: list[int] = []
    texts: list[str] = []
    column = 0

    def fragment() -> Fragment:
        first, last = rows[0] - 1, rows[-1]
        shown = range(max(first - AROUND, 0), min(last + AROUND, len(lines)))
        code = "\n".join(f"{'>' if first <= at < last else ' '} {lines[at]}" for at in shown)
        text = "\n".join(texts)
        return Fragment(path, rows[0], names_at(tree, rows[0]), text, code)

    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        row, at = token.start
        is_whole_line = not token.line[:at].strip()
        if rows and (not is_whole_line or (row, at) != (rows[-1] + 1, column)):
            yield fragment()
            rows.clear()
            texts.clear()
        rows.append(row)
        texts.append(re.sub(r"^#:? ?", "", token.string))
        column = at
    if rows:
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
    for number, one in enumerate(drawn, 1):
        print(f"\n{number}. {one.path.relative_to(ROOT)}:{one.line}  {one.inside}")
        print(textwrap.indent(one.shown, "    "))


if __name__ == "__main__":
    main()
