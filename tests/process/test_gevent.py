"""Processes in which gevent replaces threads, before or after they configure fapilog."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.otlp_servers import Certificates, SocketServer
from tests.support.processes import PATIENT, numbered, otlp, receiving, run

pytest.importorskip("gevent")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and forks")

PATCH = "from gevent import monkey; monkey.patch_all()\n"
#: Where the replacement comes; ``run`` has imported fapilog before all of it.
ORDERS = {
    "before configure": PATCH + "fapilog.configure()\n",
    "after configure": "fapilog.configure()\n" + PATCH,
    "after the first records": "log.info('first'); fapilog.flush(60)\n" + PATCH,
}
#: Runs a script in a process in which gevent replaced everything before fapilog's import.
FIRST = """
path, *sys.argv[1:] = sys.argv[1:]
os.execv(sys.executable, [sys.executable, "-W", "ignore", path, *sys.argv[1:]])
"""
FIVE = "for n in range(5): log.info(f'line {n}')\n"
LINES = numbered("line ", 5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sink", ["console", "file", "otlp", "otlp by name"])
def test_what_is_logged_right_before_the_end_arrives(order: str, sink: str, tmp_path: Path):
    path = tmp_path / "app.jsonl"
    with receiving() as ids:
        url = ids.url.replace("127.0.0.1", "localhost") if "name" in sink else ids.url
        target = {"console": "console", "file": f"file:{path}"}.get(sink, f"otlp:{url}")
        done = run(ORDERS[order] + FIVE, env={**PATIENT, "FAPILOG_SINKS": target}, timeout=50)
        assert (done.returncode, done.stderr) == (0, "")
        if sink.startswith("otlp"):
            found = sorted(ids.counts.elements())
        else:
            written = done.stdout if sink == "console" else path.read_text()
            found = sorted(json.loads(line)["body"] for line in written.splitlines())
    assert [one for one in found if one != "first"] == LINES


def test_a_process_that_is_patched_before_it_imports_fapilog_delivers(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(PATCH + "import fapilog\nlog = fapilog.get_logger('t')\n" + FIVE)
    with receiving() as ids:
        done = run(FIRST, script, env=otlp(ids), timeout=50)
        assert (done.returncode, done.stderr) == (0, "")
        ids.assert_each_once(LINES)


@pytest.mark.parametrize("order", ORDERS)
def test_an_encrypted_connection_works_in_any_order(order: str, tmp_path: Path):
    certificates = Certificates(tmp_path)
    with receiving(ssl_context=certificates.server_context()) as ids:
        env = otlp(ids, OTEL_EXPORTER_OTLP_CERTIFICATE=certificates.ca)
        done = run(ORDERS[order] + FIVE + "print(fapilog.flush(60))\n" + FIVE, env=env, timeout=50)
        assert (done.stdout, done.stderr) == ("True\n", "")
        assert {line: ids.counts[line] for line in LINES} == dict.fromkeys(LINES, 2)


@pytest.mark.parametrize("order", ["before configure", "after the first records"])
def test_what_many_greenlets_log_arrives_once_while_the_others_run(order: str):
    with receiving() as ids:
        done = run(
            ORDERS[order]
            + """
import gevent
longest = 0.0
def tick():
    global longest
    while True:
        began = time.monotonic()
        gevent.sleep(0.001)
        longest = max(longest, time.monotonic() - began)
def work(number):
    for n in range(200):
        log.info(f"{number}/{n}")
        gevent.sleep(0)
ticking = gevent.spawn(tick)
gevent.joinall([gevent.spawn(work, number) for number in range(20)])
delivered = fapilog.flush(60)
print(json.dumps([delivered, longest]))
""",
            env=otlp(ids, FAPILOG_SINK_OVERFLOW="block"),
        )
        assert done.stderr == ""
        delivered, longest = json.loads(done.stdout)
        assert delivered
        assert longest < 5
        ids.counts.pop("first", None)
        ids.assert_each_once(f"{number}/{n}" for number in range(20) for n in range(200))


@pytest.mark.parametrize("order", ["before configure", "after the first records"])
def test_neither_a_flush_nor_a_backend_that_is_mute_stops_the_other_greenlets(order: str):
    def say_nothing(_connection: socket.socket) -> None:
        mute.stopping.wait(60)

    with SocketServer(say_nothing) as mute:
        done = run(
            ORDERS[order].replace("flush(60)", "flush(0)")
            + """
import gevent
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1
gevent.spawn(tick)
log.info("one")
print(json.dumps([fapilog.flush(1), ticks]))
fapilog.shutdown(0.1)
""",
            env={"FAPILOG_SINKS": f"otlp:{mute.url}"},
            timeout=50,
        )
        mute.stopping.set()
        delivered, ticks = json.loads(done.stdout)
        assert not delivered
        assert ticks > 5


@pytest.mark.parametrize("order", ORDERS)
def test_sigterm_delivers_what_was_logged(order: str):
    with receiving() as ids:
        done = run(
            ORDERS[order]
            + FIVE
            + """
import gevent
gevent.spawn_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
gevent.sleep(60)
""",
            env=otlp(ids),
            timeout=50,
        )
        assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
        ids.counts.pop("first", None)
        ids.assert_each_once(LINES)


@pytest.mark.parametrize("order", ORDERS)
def test_a_flush_in_a_callback_of_the_event_loop_delivers(order: str):
    done = run(
        ORDERS[order]
        + """
import gevent
log.info("one")
gevent.get_hub().loop.run_callback(lambda: print(fapilog.flush(60), file=sys.stderr))
gevent.sleep(0.01)
""",
        env={**PATIENT, "FAPILOG_SINKS": "console"},
        timeout=50,
    )
    assert done.stderr == "True\n"


# On 3.13 gevent's own hook fails in children if any thread ran before the replacement.
@pytest.mark.parametrize("order", ["before configure", "after configure"])
def test_forked_children_deliver_for_themselves(order: str):
    with receiving() as ids:
        done = run(
            ORDERS[order]
            + """
for n in range(4):
    log.info(f"parent/{n}")
    if os.fork() == 0:
        log.info(f"child/{n}")
        sys.exit(0)
    os.wait()
""",
            env=otlp(ids),
            timeout=50,
        )
        assert (done.returncode, done.stderr) == (0, "")
        ids.counts.pop("first", None)
        ids.assert_each_once([*numbered("parent/", 4), *numbered("child/", 4)])
