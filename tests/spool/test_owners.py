"""Records on disk are sent only by the sink that they were logged for."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import fapilog
from fapilog.cli.receiver import Receiver
from fapilog.delivery import spooling
from fapilog.errors import ConfigurationError
from fapilog.sinks import LokiSink, OTLPSink
from fapilog.spool import Owner, Quarantine, Spool, announce_strangers
from fapilog.spool.credentials import FILE as MARK
from fapilog.spool.directory import FILE, read_owner
from fapilog.spool.survey import survey
from tests.delivery.test_spooling import DurableScripted
from tests.support.ledger import wait_for
from tests.support.spool import FORMAT, crash, drain, options, put, segments
from tests.support.spool_shell import Shell, held, leave, make_shell, packed, refuse

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


# ---- credentials


def with_credentials(directory: Path, credentials: str, **more: Any) -> Spool:
    spool = Spool("otlp", FORMAT, options(directory), credentials=credentials, **more)
    spool.open()
    return spool


def test_records_are_adopted_with_the_credentials_that_they_were_logged_with(tmp_path, capsys):
    spool = with_credentials(tmp_path, "token A")
    put(spool, "for A")
    crash(spool)
    for credentials in ("token B", ""):
        other = with_credentials(tmp_path, credentials)
        assert (other.adopt(), other.read()) == (0, None)
        other.close()
    assert "logged with other credentials" in capsys.readouterr().err
    again = with_credentials(tmp_path, "token A")
    again.adopt()
    assert drain(again) == ["for A"]
    again.close()
    assert not segments(tmp_path)
    assert [path.name for path in (tmp_path / "otlp").iterdir()] == []


def test_records_without_a_mark_of_credentials_are_adopted_with_any(tmp_path):
    put(without := with_credentials(tmp_path, ""), "before there were marks")
    crash(without)
    spool = with_credentials(tmp_path, "token")
    spool.adopt()
    assert drain(spool) == ["before there were marks"]
    spool.close()


@pytest.mark.parametrize("text", ["", "x", "pbkdf2-sha256-10000 zz zz", "next-scheme a b", "\xff"])
def test_a_mark_that_cannot_be_used_keeps_the_records_waiting(tmp_path, text):
    spool = with_credentials(tmp_path, "token")
    put(spool, "x")
    assert spool.directory is not None
    (spool.directory / MARK).write_text(text, encoding="latin-1")
    crash(spool)
    other = with_credentials(tmp_path, "token")
    assert other.adopt() == 0
    other.close()


def test_the_disk_holds_no_credentials_and_no_digest_that_two_processes_share(tmp_path):
    marks = []
    for _ in range(2):
        spool = with_credentials(tmp_path, "s3cr3t")
        put(spool, "x")
        assert spool.directory is not None
        marks.append((spool.directory / MARK).read_text())
        crash(spool)
    assert len(set(marks)) == 2
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert b"s3cr3t" not in path.read_bytes()


def test_a_deleted_mark_is_written_again(tmp_path):
    spool = with_credentials(tmp_path, "token")
    put(spool, "x")
    assert spool.directory is not None
    mark = (spool.directory / MARK).read_text()
    (spool.directory / MARK).unlink()
    spool.check()
    assert (spool.directory / MARK).read_text() == mark
    spool.close()


def test_two_processes_with_different_credentials_never_adopt_each_other(tmp_path):
    one, two = with_credentials(tmp_path, "A"), with_credentials(tmp_path, "B")
    put(one, "a")
    put(two, "b")
    assert (one.adopt(), two.adopt()) == (0, 0)
    assert (drain(one), drain(two)) == (["a"], ["b"])
    one.close()
    two.close()


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


def credentials(url: str = "http://h:1", **more: Any) -> str:
    return OTLPSink(url, **more).credentials


def test_credentials_differ_by_whatever_may_tell_two_accounts_apart(tmp_path):
    (tmp_path / "a.pem").touch()
    (tmp_path / "b.pem").touch()
    chains = [{"client_certificate": tmp_path / name} for name in ("a.pem", "b.pem")]
    different = [
        credentials(),
        *(credentials(headers={"Authorization": f"Bearer {key}"}) for key in "ab"),
        *(credentials(headers={"api-key": key}) for key in "ab"),
        *(credentials(headers={"x-honeycomb-team": key}) for key in "ab"),
        *(credentials(f"http://h:1/v1?token={key}") for key in "ab"),
        *(credentials(f"http://{key}@h:1") for key in "ab"),
        *(credentials("https://h:1", **chain) for chain in chains),
        LokiSink("http://h:1", token="t").credentials,
    ]
    assert len(set(different)) == len(different)


def test_credentials_are_the_same_after_a_change_that_keeps_the_account():
    assert credentials("http://17:one@h:1") == credentials("http://17:two@h:1") == ""
    assert credentials(headers={"user-agent": "one/1"}) == credentials()
    assert credentials(headers={"X-Scope-OrgID": "a"}) == "", "the destination has it"


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


class Guarded:
    """A backend of several accounts, which keeps the tokens of the requests."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.tokens += [request.headers["authorization"]] * request.content.count(b"placed")
        return httpx.Response(200)


def tenant(token: str, answer: Any) -> OTLPSink:
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx.MockTransport(answer)
    return OTLPSink("http://h:1", headers=headers, compression="none", transport=transport)


def test_records_of_one_account_never_go_out_with_the_token_of_another(tmp_path, capsys):
    backend = Guarded()
    run([tenant("A", lambda _: httpx.Response(503))], tmp_path, 5, 1.0)
    run([tenant("B", backend)], tmp_path, 1, 1.0)
    assert backend.tokens == ["Bearer B"]
    assert "fapilog spool adopt otlp~" in capsys.readouterr().err
    options: Any = {"directory": str(tmp_path), "min_free": 0}
    fapilog.configure(sinks=[tenant("A", backend)], spool=options, **QUICK)
    fapilog.get_logger("shop").info("placed")
    wait_for(lambda: backend.tokens.count("Bearer A") == 6)
    fapilog.shutdown(2)
    assert backend.tokens.count("Bearer A") == 6


def test_sinks_that_only_a_secret_tells_apart_fail_at_start(tmp_path):
    one, two = (OTLPSink("http://127.0.0.1:9", headers={"api-key": key}) for key in "ab")
    with pytest.raises(ConfigurationError, match="give each sink its own name"):
        run([one, two], tmp_path, 0)
    own, other = DurableScripted(), DurableScripted()
    with pytest.raises(ConfigurationError, match="give each sink its own name"):
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


# ---- a service that logs nothing


def crash_with_records(directory: Path, url: str) -> None:
    """Leave the records of a service that died while its backend was down."""
    sink = OTLPSink(url)
    spool = Spool("otlp", sink.wire_format, options(directory), destination=sink.destination)
    spool.open()
    spool.append(*packed("a", "b"))
    crash(spool)


def configure_quietly(directory: Path, url: str) -> None:
    spool: Any = {"directory": str(directory), "min_free": 0}
    fapilog.configure(sinks=[OTLPSink(url)], spool=spool, handle_sigterm=False, **QUICK)


def spool_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.endswith("-spool")]


def wait_for_logs(receiver: Receiver, count: int) -> None:
    until = time.monotonic() + 20
    while len(receiver.logs) < count and time.monotonic() < until:
        time.sleep(0.02)
    assert len(receiver.logs) == count


def test_a_service_that_logs_nothing_sends_what_a_dead_process_left(tmp_path, receiver):
    crash_with_records(tmp_path, receiver.http_endpoint)
    configure_quietly(tmp_path, receiver.http_endpoint)
    wait_for_logs(receiver, 2)
    fapilog.shutdown(5)
    assert not segments(tmp_path)


def test_without_records_of_a_dead_process_no_thread_starts_before_the_first_record(
    tmp_path, receiver
):
    configure_quietly(tmp_path, receiver.http_endpoint)
    assert spool_threads() == []
    fapilog.shutdown(5)


def test_the_first_record_ends_the_quiet_time(tmp_path, receiver, monkeypatch):
    monkeypatch.setattr(spooling, "_QUIET", 60.0)
    crash_with_records(tmp_path, receiver.http_endpoint)
    configure_quietly(tmp_path, receiver.http_endpoint)
    fapilog.get_logger("shop").info("placed")
    wait_for_logs(receiver, 3)
    fapilog.shutdown(5)


def test_the_end_of_a_quiet_service_does_not_wait_for_the_quiet_time(
    tmp_path, receiver, monkeypatch
):
    monkeypatch.setattr(spooling, "_QUIET", 60.0)
    crash_with_records(tmp_path, receiver.http_endpoint)
    configure_quietly(tmp_path, receiver.http_endpoint)
    began = time.monotonic()
    fapilog.shutdown(10)
    assert time.monotonic() - began < 5
    assert len(segments(tmp_path)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_in_the_quiet_time_logs_and_its_parent_adopts(tmp_path, receiver):
    crash_with_records(tmp_path, receiver.http_endpoint)
    configure_quietly(tmp_path, receiver.http_endpoint)
    child = os.fork()
    if child == 0:
        fapilog.get_logger("shop").info("placed")
        fapilog.shutdown(10)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    wait_for_logs(receiver, 3)
    fapilog.shutdown(5)


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


def configure_token(monkeypatch: Any, receiver: Receiver, token: str) -> None:
    monkeypatch.setenv("FAPILOG_SINKS", f"otlp:{receiver.http_endpoint}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={token}")


def test_records_of_a_changed_token_wait_until_they_are_adopted(
    shell, tmp_path, receiver, monkeypatch
):
    configure_token(monkeypatch, receiver, "old")
    path = leave(tmp_path, ("a", "b"), credentials="api-key=old")
    refuse(tmp_path, "bad", credentials="api-key=old")
    name = path.parent.name
    assert "other credentials" not in shell("status")[1]
    configure_token(monkeypatch, receiver, "new")
    out = shell("status")[1]
    assert out.count("other credentials") == 3
    assert f"fapilog spool adopt {name} --sink otlp" in out
    (shown,) = json.loads(shell("status", "--json")[1])[name]["directories"]
    assert shown["other_credentials"] is True
    for more in ((), ("--quarantine",)):
        code, out, _ = shell("replay", *more)
        assert code == 1
        assert f"fapilog spool adopt {name} --sink otlp" in out
    assert not receiver.logs
    code, out, _ = shell("adopt", name, "--sink", "otlp", "--yes")
    assert (code, out.count("✓")) == (0, 2)
    assert shell("adopt", name, "--sink", "otlp", "--yes")[1] == "nothing to adopt\n"
    assert shell("replay")[0] == shell("replay", "--quarantine")[0] == 0
    assert sorted(log.body for log in receiver.logs) == ["a", "b", "bad"]
    assert not list(tmp_path.rglob("*.credentials"))


def test_adopt_marks_records_with_the_credentials_of_their_new_sink(
    shell, tmp_path, receiver, monkeypatch
):
    leave(tmp_path, ("a",), destination="elsewhere", credentials="api-key=old")
    configure_token(monkeypatch, receiver, "new")
    name = Owner("otlp", "otlp-protobuf", "elsewhere").directory
    assert shell("adopt", name, "--sink", "otlp", "--yes")[0] == 0
    assert shell("replay")[:2] == (0, "✓ otlp: 1 record delivered\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_linked_description_is_not_followed(tmp_path):
    spool_for(tmp_path, "A").close()
    (path,) = tmp_path.iterdir()
    (tmp_path / "elsewhere").write_text((path / FILE).read_text())
    (path / FILE).unlink()
    (path / FILE).symlink_to(tmp_path / "elsewhere")
    assert read_owner(path) == Owner("otlp")
