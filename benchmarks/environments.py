"""The environments of a comparison: this one, and one per set of peers.

uv installs the peers with pinned versions into ``benchmarks/.peers``, on the
interpreter that runs this program, so both sides have the same CPython.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / ".peers"


def python_of(name: str) -> str:
    """Return the path of an environment's interpreter, and create the environment if needed.

    Args:
        name: ``self`` (the fapilog of this tree), ``peers`` or ``older``.
    """
    if name == "self":
        return sys.executable
    requirements = HERE / f"{name}-requirements.txt"
    version = platform.python_version()
    pins = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
    environment = PEERS / f"{name}-{version}-{pins}"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists():
        shutil.rmtree(environment, ignore_errors=True)
        base = getattr(sys, "_base_executable", sys.executable)
        uv("venv", "--python", base, str(environment))
        uv("pip", "install", "--python", str(python), "-r", str(requirements))
        (environment / "complete").touch()
    return str(python)


def uv(*arguments: str) -> None:
    subprocess.run([os.environ.get("UV", "uv"), "--quiet", *arguments], check=True, cwd=HERE)
