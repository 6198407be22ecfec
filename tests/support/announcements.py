"""Finds the text of every announcement in the packages' code.

A text is the message of a call of ``announce``, with ``…`` for each value that is
only known at run time.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "fapilog", ROOT / "integrations")
VALUE = "…"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def texts() -> dict[str, str]:
    """Return the place of each announcement's text: ``fapilog/engine/emit.py:194``."""
    found: dict[str, str] = {}
    for path in (path for package in PACKAGES for path in sorted(package.rglob("*.py"))):
        functions = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        by_name = {function.name: function for function in functions}
        for function in functions:
            for call in _announcing(function):
                for text in _texts_of(call.args[1], _literals(function), by_name):
                    collapsed = re.sub(rf"({VALUE}\s*)+{VALUE}", VALUE, text)
                    found[collapsed] = f"{path.relative_to(ROOT)}:{call.lineno}"
    return found


def _announcing(function: Function) -> Iterator[ast.Call]:
    # The functions with this name pass a text on, for example with the sink's name before it.
    if function.name.strip("_") == "announce":
        return
    for node in ast.walk(function):
        match node:
            case ast.Call(func=called, args=[_, _, *_]) if (
                _name_of(called).strip("_") == "announce"
            ):
                yield node


def _name_of(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _literals(function: ast.AST) -> dict[str, list[ast.expr]]:
    """Return the texts that are assigned to each variable of the function."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for variable, value in _pairs(target, node.value):
                    if isinstance(value, ast.Constant | ast.JoinedStr | ast.IfExp):
                        found.setdefault(variable.id, []).append(value)
    return found


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.Name, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its_value in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, its_value)


def _texts_of(
    node: ast.expr, literals: dict[str, list[ast.expr]], functions: dict[str, Function]
) -> list[str]:
    """Return every text that an expression may have."""

    def texts_of(one: ast.expr) -> list[str]:
        return _texts_of(one, literals, functions)

    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(chosen) for chosen in itertools.product(*map(texts_of, parts))]
        case ast.FormattedValue(value=value):
            return texts_of(value)
        case ast.IfExp(body=body, orelse=orelse):
            return texts_of(body) + texts_of(orelse)
        case ast.Name(id=name) if name in literals:
            others = {key: values for key, values in literals.items() if key != name}
            return [text for one in literals[name] for text in _texts_of(one, others, functions)]
        case ast.Call(func=ast.Name(id="partial"), args=[made_by, *_]):
            made = functions[_name_of(made_by)]
            results = [one.value for one in ast.walk(made) if isinstance(one, ast.Return)]
            return [text for one in results if one for text in _texts_of(one, {}, functions)]
        case _:
            return [VALUE]
