"""Tries the installed package with its required dependencies only.

Run it with ``python -I`` in an environment that has the built wheel and no
extras.  ``-I`` makes it import the wheel, never the source tree.
"""

import importlib.metadata
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import fapilog
from fapilog.sinks import ConsoleSink, MemorySink

package = Path(fapilog.__file__).parent
assert "site-packages" in package.parts, f"{package} is not the installed wheel"
assert (package / "py.typed").is_file(), "py.typed is not in the wheel"

for extra in ("fastapi", "grpc", "prometheus_client", "typer"):
    assert importlib.util.find_spec(extra) is None, (
        f"{extra} is installed, so this is not a minimal environment"
    )

for name in fapilog.__all__:
    getattr(fapilog, name)

# Only opentelemetry-instrument loads these, so they may need packages that come with it.
auto = {"opentelemetry_configurator", "opentelemetry_distro"}
groups, missing = set(), set()
for entry_point in importlib.metadata.distribution("fapilog").entry_points:
    if entry_point.group == "pytest11":  # pytest is not installed here
        continue
    groups.add(entry_point.group)
    try:
        assert callable(entry_point.load()), entry_point
    except ModuleNotFoundError as error:
        missing.add((entry_point.group, error.name))
assert missing == {(group, "wrapt") for group in auto}, missing
assert groups == auto | {
    "console_scripts",
    "opentelemetry_logger_provider",
    "opentelemetry_logs_exporter",
    "opentelemetry_traces_exporter",
}, groups

sink = MemorySink()
stream = io.StringIO()
fapilog.configure(sinks=[sink, ConsoleSink(stream)])
fapilog.get_logger("smoke").info("order placed", order_id=42, password="hunter2")
assert fapilog.flush(10), "flush timed out"
(record,) = sink.records
assert record.attributes["order_id"] == 42
assert "hunter2" not in repr(record), "a password was not redacted"
fapilog.shutdown(10)
assert json.loads(stream.getvalue())["body"] == "order placed"

(script,) = Path(sys.executable).parent.glob("fapilog*")
without_typer = subprocess.run([script], capture_output=True, check=False, text=True)  # noqa: S603
assert without_typer.returncode == 1
assert without_typer.stderr.count("\n") == 1, without_typer.stderr
assert "pip install 'fapilog[cli]'" in without_typer.stderr

print(f"fapilog {importlib.metadata.version('fapilog')} works on Python {sys.version.split()[0]}")
