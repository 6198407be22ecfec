"""The settings for Django in the documentation pass the records that the text promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import environment

PAGE = (Path(__file__).parents[2] / "docs" / "bridges.md").read_text(encoding="utf-8")

#: Django sets up its own handlers, applies the setting LOGGING, and logs.
DJANGO = """
import logging.config

logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
    "loggers": {
        "django": {"handlers": ["console"], "level": "INFO"},
        "django.server": {"handlers": ["console"], "level": "INFO", "propagate": False},
    },
})
logging.config.dictConfig(LOGGING)
for name in ("django.request", "django.server", "django.db.backends", "orders.views", "other"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
print("the output of the program")
"""


def settings() -> str:
    section = PAGE[PAGE.index("\n## Django\n") :]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def test_each_record_is_on_stderr_once_and_statements_are_among_them() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", settings() + DJANGO],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    assert ended.stdout == "the output of the program\n"
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["body"] for line in lines] == [
        "warning of django.request",
        "warning of django.server",
        "debug of django.db.backends",
        "warning of django.db.backends",
        "warning of orders.views",
        "warning of other",
    ]
    assert {line["resource"]["service.name"] for line in lines} == {"shop"}
