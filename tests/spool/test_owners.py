"""Records on disk are sent only by the sink that they were logged for."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fapilog
from fapilog.cli.receiver import Receiver
from fapilog.errors import ConfigurationError
from fapilog.sinks import LokiSink, OTLPSink
from fapilog.spool import Owner, Quarantine, Spool, announce_strangers
from fapilog.spool.directory import FILE, read_owner
from fapilog.spool.survey import survey
from tests.delivery.test_spooling import DurableScripted
from tests.support.spool import FORMAT, crash, drain, options, put, segments
from tests.support.spool_shell import Shell, held, leave, make_shell, refuse

QUICK: dict[str, Any] = {"retry_initial": 0.05, "retry_maximum": 0.1}


def spool_for(directory: Path, destination: str, name: str = "otlp") -> Spool:
    spool = Spool(name, FORMAT, options(directory), destination=destination)
    spool.open()
    return spool


# ---- directories


def test_records_are_adopted_for_their_own_destination_only(tmp_path):
    spool = spool_for(tmp_path, "the house of A")
    put(spool, "for A")
    crash(spool)
    for destination, name in (("the house of B", "otlp"), ("", "otlp"), ("the house of A", "b")):
        other = spool_for(tmp_path, destination, name)
        assert (other.adopt(), other.read()) == (0, None)
        other.close()
    again = spool_for(tmp_path, "the house of A")
    again.adopt()
    assert drain(again) == ["for A"]
    again.close()


def test_a_directory_says_in_words_whose_it_is(tmp_path):
    spool_for(tmp_path, "the house of A").close()
    (path,) = tmp_path.iterdir()
    assert read_owner(path) == Owner("otlp", FORMAT, "the house of A")
    assert "the house of A" in (path / FILE).read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "otlp", "destination": "other"}'])
def test_a_description_that_does_not_match_is_not_believed_and_written_again(tmp_path, text):
    spool_for(tmp_path, "A").close()
    (path,) = tmp_path.iterdir()
    (path / FILE).write_text(text)
    assert read_owner(path) == Owner("otlp")
    spool_for(tmp_path, "A").close()
    assert read_owner(path).destination == "A"


def test_refused_records_are_kept_by_destination_too(tmp_path):
    for destination in ("A", "B"):
        quarantine = Quarantine("otlp", FORMAT, options(tmp_path), destination=destination)
        assert quarantine.add(b"x", [9], "no")
    assert sorted(one.owner.destination for one in survey(tmp_path)) == ["A", "B"]
    assert all(len(one.quarantine) == 1 for one in survey(tmp_path))


# ---- destinations of the sinks


def loki(url: str = "http://h:1", **more: Any) -> str:
    return LokiSink(url, **more).destination


def otlp(url: str = "http://h:1", **more: Any) -> str:
    return OTLPSink(url, **more).destination


def test_destinations_differ_by_endpoint_protocol_and_tenant():
    different = [
        otlp(),
        otlp("http://h:2"),
        otlp("https://h:1"),
        otlp("http://h:1/other"),
        otlp(protocol="http/json"),
        otlp("http://h:1", headers={"X-Scope-OrgID": "a"}),
        otlp("http://h:1", headers={"X-Scope-OrgID": "b"}),
        otlp("http://h:1/?project=a"),
        otlp("http://h:1/?project=b"),
        otlp("http://17:token@h:1"),
        otlp("http://18:token@h:1"),
        loki(),
        loki(tenant="a"),
        loki(tenant="b"),
        loki(username="17", password="token"),
    ]
    assert len(set(different)) == len(different)


def test_a_destination_is_the_same_after_a_change_of_credentials():
    assert loki(token="one") == loki(token="two") == loki()
    assert loki(username="17", password="one") == loki(username="17", password="two")
    assert otlp("http://17:one@H:1") == otlp("http://17:two@h:1")
    assert otlp("http://one@h:1") == otlp("http://two@h:1"), "a user alone is a token"
    for name in ("Authorization", "api-key", "x-org-token", "x-project-secret", "cookie"):
        assert otlp(headers={name: "one"}) == otlp(headers={name: "two"})
    assert otlp("http://h:1/v1?api_key=one") == otlp("http://h:1/v1?api_key=two")


def test_a_destination_shows_no_secret():
    shown = otlp(
        "http://someone:passw0rd@h:1/v1?project=pr0ject&token=t0ken",
        headers={"x-scope-orgid": "0rg", "x-api-key": "k3y"},
    ) + loki(token="t0ken", tenant="acme")
    assert "acme" in shown
    for secret in ("someone", "passw0rd", "pr0ject", "t0ken", "0rg", "k3y"):
        assert secret not in shown


# ---- whole pipelines


def run(sinks: list[Any], directory: Path, count: int, seconds: float = 3.0) -> None:
    """Run a service once: it logs, delivers the records that it can, and ends."""
    fapilog.configure(sinks=sinks, spool={"directory": str(directory), "min_free": 0}, **QUICK)
    for _ in range(count):
        fapilog.get_logger("shop").info("placed")
    fapilog.flush(seconds)
    until = time.monotonic() + seconds
    while fapilog.stats().adopted and fapilog.stats().spooled and time.monotonic() < until:
        time.sleep(0.01)
    fapilog.shutdown(2)


def closed_url() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.fixture
def receiver():
    with Receiver(grpc_port=None) as receiver:
        yield receiver


def test_sinks_that_change_places_send_their_own_records(tmp_path, receiver):
    down = OTLPSink(closed_url(), timeout=0.5)
    run([down, OTLPSink(receiver.http_endpoint)], tmp_path, 10)
    assert len(receiver.logs) == 10
    run([OTLPSink(receiver.http_endpoint), OTLPSink(down.options.endpoint)], tmp_path, 1, 1.0)
    assert len(receiver.logs) == 11, "the others were for the one that is down"
    (report,) = survey(tmp_path)
    assert report.owner.destination == down.destination
    assert sum(one.records for one in report.directories) == 11


def test_two_services_with_one_directory_send_each_their_own(tmp_path, receiver, capsys):
    first = OTLPSink(closed_url(), timeout=0.5)
    run([first], tmp_path, 5)
    run([OTLPSink(receiver.http_endpoint)], tmp_path, 3)
    assert len(receiver.logs) == 3
    err = capsys.readouterr().err
    assert f"for {first.destination}, and no sink named 'otlp' sends there" in err
    assert "fapilog spool adopt otlp~" in err


def test_sinks_that_only_a_secret_tells_apart_fail_at_start(tmp_path):
    one, two = (OTLPSink("http://127.0.0.1:9", headers={"api-key": key}) for key in "ab")
    with pytest.raises(ConfigurationError, match="give each a name of its own"):
        run([one, two], tmp_path, 0)
    own, other = DurableScripted(), DurableScripted()
    with pytest.raises(ConfigurationError, match="give each a name of its own"):
        run([own, other], tmp_path, 0)
    named = OTLPSink("http://127.0.0.1:9", headers={"api-key": "b"}, name="tenant-b")
    run([one, named], tmp_path, 0)


def test_a_destination_that_is_not_a_text_fails_at_start(tmp_path):
    sink = DurableScripted()
    sink.destination = 7  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="destination=7"):
        run([sink], tmp_path, 0)


def test_records_that_no_sink_may_send_are_announced_unless_their_process_lives(tmp_path, capsys):
    living, dead, old = (
        spool_for(tmp_path, where, where or "old") for where in ("living", "dead", "")
    )
    for spool in (living, dead, old):
        put(spool, "x")
    for spool in (dead, old):
        crash(spool)
    announce_strangers(tmp_path, {Owner("other", FORMAT, "elsewhere").directory})
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "for dead, and no sink named 'dead' sends there" in err
    assert f"{tmp_path / 'old'} and their destination is not known" in err
    announce_strangers(tmp_path / "missing", set())
    living.close()
    assert capsys.readouterr().err == ""


# ---- the command


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path) -> Shell:
    return make_shell(capsys, monkeypatch, tmp_path)


def test_status_shows_the_destination(shell, tmp_path):
    leave(tmp_path, ("a",), destination="OTLP to the moon")
    out = shell("status")[1]
    directory = Owner("otlp", "otlp-protobuf", "OTLP to the moon").directory
    assert f"{directory}, for OTLP to the moon" in out
    report = json.loads(shell("status", "--json")[1])[directory]
    assert (report["sink"], report["destination"]) == ("otlp", "OTLP to the moon")


def test_records_of_an_earlier_release_wait_until_a_sink_adopts_them(
    shell, tmp_path, receiver, monkeypatch
):
    old = leave(tmp_path, ("a", "b"))
    refuse(tmp_path, "bad")
    monkeypatch.setenv("FAPILOG_SINKS", f"otlp:{receiver.http_endpoint}")
    run([OTLPSink(receiver.http_endpoint)], tmp_path / "spool", 1)
    assert len(receiver.logs) == 1
    code, out, _ = shell("replay")
    assert code == 1
    assert "fapilog spool adopt otlp --sink NAME; configured sinks: otlp" in out
    code, out, err = shell("adopt", "otlp", "--sink", "otlp")
    assert (code, old.exists()) == (1, True)
    assert "no terminal to ask on; use --yes" in err
    code, out, _ = shell("adopt", "otlp", "--sink", "otlp", "--yes")
    assert code == 0
    assert out.count("✓ moved") == 2
    assert receiver.http_endpoint in out
    assert not old.parent.exists()
    assert shell("replay")[:2] == (0, "✓ otlp: 2 records delivered\n")
    assert shell("replay", "--quarantine")[:2] == (0, "✓ otlp: 1 record delivered\n")
    assert sorted(log.body for log in receiver.logs) == ["a", "b", "bad", "placed"]


def test_adopt_gives_no_sink_another_wire_format(shell, tmp_path, monkeypatch):
    kept = leave(tmp_path, ("a",), wire_format="otlp-json")
    moved = leave(tmp_path, ("b",))
    monkeypatch.setenv("FAPILOG_SINKS", "otlp:http://127.0.0.1:9")
    code, out, _ = shell("adopt", "otlp", "--sink", "otlp", "--yes")
    assert code == 1
    assert f"✗ kept {kept}: holds otlp-json" in out
    assert f"✓ moved {moved}" in out
    assert {path.parent for path in segments(tmp_path)} > {kept}
    assert not held(tmp_path)


def test_adopt_leaves_the_directory_of_a_living_process(shell, tmp_path, monkeypatch):
    spool = Spool("old", "otlp-protobuf", options(tmp_path / "spool"))
    put(spool, "x")
    monkeypatch.setenv("FAPILOG_SINKS", "otlp:http://127.0.0.1:9")
    assert shell("adopt", "old", "--sink", "otlp", "--yes")[0] == 0
    assert drain(spool) == ["x"]
    spool.close()


def test_adopt_names_the_mistake(shell, tmp_path, monkeypatch):
    leave(tmp_path, ("a",))
    monkeypatch.setenv("FAPILOG_SINKS", "console,otlp:http://127.0.0.1:9")
    code, _, err = shell("adopt", "otlp", "--sink", "console", "--yes")
    assert code == 2
    assert (
        "--sink console: no such sink is configured, or it cannot spool; sinks that can spool: otlp"
        in err
    )
    code, _, err = shell("adopt", "loki", "--sink", "otlp", "--yes")
    assert code == 2
    assert "no records of this sink are on disk" in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_linked_description_is_not_followed(tmp_path):
    spool_for(tmp_path, "A").close()
    (path,) = tmp_path.iterdir()
    (tmp_path / "elsewhere").write_text((path / FILE).read_text())
    (path / FILE).unlink()
    (path / FILE).symlink_to(tmp_path / "elsewhere")
    assert read_owner(path) == Owner("otlp")
