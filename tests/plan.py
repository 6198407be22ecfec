"""Prints the figures of fapilog's structure: ``python -m tests.plan [CHECKOUT]``.

The figures are the modules and their lines, the files that one INFO record
passes through on its way to OTLP, circular imports, rebound globals, and fork
hooks.  Another checkout, also an older one with other packages, is measured
with the environment that runs this command.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]

#: Runs in a child process, in the directory of the checkout, and prints the files in
#: the order of their first call.  The first record starts the threads and opens the
#: connection; the second one is traced, until a receiver in the same process has read it.
TRACE = """
import sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

tracing, received, seen = False, threading.Event(), {}

class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        global tracing
        self.rfile.read(int(self.headers["Content-Length"]))
        tracing = False
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
        received.set()
    def log_message(self, *args):
        pass

def note(frame, event, argument):
    if tracing:
        seen[frame.f_code.co_filename] = None

server = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
threading.setprofile(note)
sys.setprofile(note)
import fapilog
from fapilog.sinks import OTLPSink
package = Path(fapilog.__file__).parent
assert package.parent == Path.cwd(), f"imported fapilog from {package}, not from {Path.cwd()}"
fapilog.configure(sinks=[OTLPSink(f"http://127.0.0.1:{server.server_port}")])
log = fapilog.get_logger("plan")
log.info("order placed", order_id=1)
assert fapilog.flush(30), "the first record was not delivered"
received.clear()
tracing = True
log.info("order placed", order_id=2)
assert received.wait(30), "the second record was not delivered"
for name in seen:
    if Path(name).is_relative_to(package):
        print(Path(name).relative_to(package))
fapilog.shutdown(10)
"""


def files_of_one_record(checkout: Path) -> list[str]:
    """Return the files of fapilog that run from ``log.info()`` until the receiver has the record."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "FAPILOG_", "COVERAGE", "PYTHON"))
    }
    command = [sys.executable, "-c", TRACE]
    result = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"cannot trace a record through {checkout / 'fapilog'}:\n{result.stderr}")
    return result.stdout.split()


def modules_of(checkout: Path) -> dict[str, ast.Module]:
    """Return the modules of the package ``fapilog`` by their dotted names."""
    modules = {}
    for path in sorted((checkout / "fapilog").rglob("*.py")):
        name = ".".join(path.relative_to(checkout).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return modules


def imports_in(tree: ast.AST, *, typing: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports in a tree, also those in functions.

    Args:
        tree: the module or a part of it.
        typing: whether imports under ``if TYPE_CHECKING`` count.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif typing or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            yield from imports_in(node, typing=typing)


def arrows(modules: dict[str, ast.Module], *, typing: bool) -> dict[str, set[str]]:
    """Return which modules each module imports; a name in a package counts as its own module."""
    graph = {}
    for name, tree in modules.items():
        wanted: set[str] = set()
        for node in imports_in(tree, typing=typing):
            if isinstance(node, ast.Import):
                wanted.update(alias.name for alias in node.names)
            elif node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= inner & modules.keys() or {node.module}
        graph[name] = (wanted & modules.keys()) - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other."""
    reach = {}
    for start in graph:
        reach[start], todo = set[str](), [start]
        while todo:
            new = graph[todo.pop()] - reach[start]
            reach[start] |= new
            todo += new
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return sorted(map(list, groups))


def rebound_globals(modules: dict[str, ast.Module]) -> list[str]:
    """Return the global names that functions rebind, as ``module.name``."""
    names = {
        f"{module}.{name}"
        for module, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
        for name in node.names
    }
    return sorted(names)


def fork_hooks(modules: dict[str, ast.Module]) -> list[str]:
    """Return the calls of ``register_at_fork``, as ``module:line``."""
    return [
        f"{module}:{node.lineno}"
        for module, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "register_at_fork" in ast.unparse(node.func)
    ]


def show(title: str, found: list[str]) -> None:
    print(f"{title}: {len(found)}", *found, sep="\n    ")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.plan")
    parser.add_argument("checkout", nargs="?", type=Path, default=HERE, help="directory to measure")
    checkout = parser.parse_args().checkout.resolve()
    modules = modules_of(checkout)
    sizes = [
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (checkout / "fapilog").rglob("*.py")
    ]
    print(f"modules: {len(modules)}")
    print(f"lines: {sum(sizes):,}")
    print(f"median lines per module: {statistics.median(sizes):g}")
    show("files that one INFO record passes through to OTLP", files_of_one_record(checkout))
    for title, typing in (("imports", False), ("imports, with TYPE_CHECKING", True)):
        found = circles(arrows(modules, typing=typing))
        show(f"circular {title}", [" ↔ ".join(circle) for circle in found])
    show("globals that functions rebind", rebound_globals(modules))
    show("calls of register_at_fork", fork_hooks(modules))


if __name__ == "__main__":
    main()
