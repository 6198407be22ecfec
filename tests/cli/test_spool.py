"""``fapilog spool`` as a shell calls it."""

from __future__ import annotations

import json
import os
import re
import sys
import time

import pytest

from fapilog.cli.spool.bodies import lines_of
from fapilog.record import LogRecord
from fapilog.settings import Settings
from fapilog.sinks.factory import sink_of
from fapilog.sinks.loki.sink import LokiSink
from fapilog.spool.quarantine import QuarantineFile
from fapilog.spool.survey import purge_directory, survey
from tests.support.spool import crash, failing, segments
from tests.support.spool_shell import (
    Shell,
    held,
    leave,
    make_shell,
    make_spool,
    packed,
    refuse,
)


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path) -> Shell:
    return make_shell(capsys, monkeypatch, tmp_path)


# ---- where


@pytest.mark.parametrize("command", ["status", "verify", "quarantine", "replay", "purge"])
def test_without_a_directory_each_command_says_how_to_give_one(shell, monkeypatch, command):
    monkeypatch.delenv("FAPILOG_SPOOL__DIRECTORY")
    code, out, err = shell(command)
    assert (code, out) == (2, "")
    assert err.startswith("fapilog: no spool is configured: set FAPILOG_SPOOL__DIRECTORY")


@pytest.mark.parametrize("command", ["status", "verify", "quarantine", "replay", "purge"])
def test_a_mistyped_directory_is_an_error(shell, tmp_path, command):
    code, _, err = shell(command, "--directory", str(tmp_path / "nowhere"))
    assert code == 2
    assert "there is no such directory" in err


@pytest.mark.parametrize("command", ["status", "verify", "quarantine", "replay", "purge"])
def test_a_spool_that_was_never_used_is_not_an_error(shell, command):
    code, out, err = shell(command)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1


def test_it_lists_its_commands(shell):
    code, out, err = shell()
    assert code in (0, 2)
    assert all(word in out + err for word in ("status", "verify", "replay", "quarantine", "purge"))


def test_a_directory_may_be_given(shell, tmp_path, monkeypatch):
    leave(tmp_path, ("a",))
    monkeypatch.delenv("FAPILOG_SPOOL__DIRECTORY")
    code, out, _ = shell("status", "--directory", str(tmp_path / "spool"))
    assert code == 0
    assert "1 record" in out


# ---- status


def test_status_shows_processes_records_and_their_age(shell, tmp_path):
    past = time.time_ns() - 7300 * 10**9
    leave(tmp_path, ("a", "b"), ("c",), now_ns=lambda: past)
    refuse(tmp_path, "bad")
    living = make_spool(tmp_path)
    living.append(*packed("d"))
    code, out, err = shell("status")
    living.close()
    assert (code, err) == (0, "")
    title, dead, alive, quarantine = out.strip().splitlines()
    assert title == "otlp"
    pid = os.getpid()
    assert re.match(rf" +process {pid} +dead +1 segment +\d+B +3 records +oldest 2 h ago$", dead)
    assert re.match(rf" +process {pid} +alive +1 segment +\d+B +1 record +oldest \d+ s ago$", alive)
    assert re.match(r" +quarantine +1 file +\d+B +1 record +oldest \d+ s ago$", quarantine)


def test_status_counts_only_records_that_are_not_settled(shell, tmp_path):
    spool = make_spool(tmp_path)
    for body in "abc":
        spool.append(*packed(body))
    frame = spool.read()
    assert frame is not None
    spool.ack(frame)
    assert "2 records" in shell("status")[1]
    crash(spool)
    assert "2 records" in shell("status")[1]


def test_status_as_json(shell, tmp_path):
    path = leave(tmp_path, ("a", "b"))
    refuse(tmp_path, "bad")
    code, out, _ = shell("status", "--json")
    assert code == 0
    report = json.loads(out)["otlp"]
    (one,) = report["directories"]
    assert (one["path"], one["alive"], one["records"], one["segments"]) == (str(path), False, 2, 1)
    assert one["wire_formats"] == ["otlp-protobuf"]
    assert report["quarantine"]["records"] == 1


def test_status_names_sinks_as_they_are_called(shell, tmp_path):
    leave(tmp_path, ("a",), name="my sink/1")
    assert shell("status")[1].splitlines()[1] == "my sink/1"


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_a_directory_that_cannot_be_read_is_shown_with_the_reason(shell, tmp_path):
    path = leave(tmp_path, ("a",))
    (path / "lock").unlink()
    assert " dead " in shell("status")[1]
    (path / "lock").symlink_to("/dev/null")
    code, out, _ = shell("status")
    assert code == 0
    assert "Too many levels of symbolic links" in out
    code, out, _ = shell("verify")
    assert code == 1
    assert f"✗ {path}: Too many levels" in out
    code, out, _ = shell("purge", "--yes")
    assert code == 1
    assert f"✗ kept {path}: " in out


def test_a_sink_directory_that_cannot_be_listed_is_shown_with_the_reason(
    shell, tmp_path, monkeypatch
):
    leave(tmp_path, ("a",))
    refused = failing(PermissionError(13, "Permission denied"))
    monkeypatch.setattr("fapilog.spool.survey.list_directories", refused)
    code, out, _ = shell("status")
    assert code == 0
    assert "Permission denied" in out
    assert shell("verify")[0] == 1


def test_a_file_in_place_of_the_directory_is_an_error(shell, tmp_path):
    (tmp_path / "spool").write_text("mine")
    code, _, err = shell("status")
    assert code == 2
    assert "Not a directory" in err


def test_status_shows_damage_and_segments_that_are_left_alone(shell, tmp_path):
    path = leave(tmp_path, ("a",), ("b",), ("c",))
    (segment,) = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[80 + (len(content) - 80) // 3] ^= 0xFF
    segment.write_bytes(content)
    (path / "00000002.seg").write_bytes(b"notes" * 100)
    out = shell("status")[1]
    assert "2 records" in out
    assert "1 segment skipped, 1 frame damaged" in out


# ---- verify


def test_verify_of_a_sound_spool_exits_with_0(shell, tmp_path):
    leave(tmp_path, ("a",), ("b",))
    refuse(tmp_path, "bad")
    code, out, err = shell("verify")
    assert (code, out, err) == (0, "✓ 3 whole frames in 2 files\n", "")


@pytest.mark.parametrize("back", [1, 60])
def test_verify_names_file_and_offset_of_damage(shell, tmp_path, back):
    leave(tmp_path, ("a",), ("b",), ("c",))
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    begin = 80 + (len(content) - 80) // 3
    content[begin + (len(content) - 80) // 3 - back] ^= 1  # in the second frame
    path.write_bytes(content)
    code, out, _ = shell("verify")
    assert code == 1
    assert f"✗ {path}: offset {begin}: " in out
    assert "1 frame\n" in out
    assert out.endswith("✗ 2 whole frames in 1 file\n")


def test_verify_names_files_that_are_not_segments_and_spares_later_formats(shell, tmp_path):
    import struct
    import zlib

    path = leave(tmp_path, ("a",))
    (path / "00000002.seg").write_bytes(b"notes" * 100)
    code, out, _ = shell("verify")
    assert code == 1
    assert f"✗ {path}/00000002.seg: is not a segment" in out
    header = b"\xffFAPSEG\n" + struct.pack("<HH", 99, 20) + bytes(4)
    (path / "00000002.seg").write_bytes(header + struct.pack("<I", zlib.crc32(header)))
    code, out, _ = shell("verify")
    assert code == 0
    assert "format version 99" in out


# ---- quarantine


def test_quarantine_shows_time_reason_and_records(shell, tmp_path):
    refuse(tmp_path, "first body", "second body", reason="HTTP 400: label name is invalid")
    code, out, err = shell("quarantine")
    assert (code, err) == (0, "")
    assert re.search(
        r"^otlp  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  2 records  INFO$", out, re.MULTILINE
    )
    assert "HTTP 400: label name is invalid" in out
    assert '"body":"first body"' in out
    assert '"body":"second body"' in out
    assert "fapilog spool replay --quarantine" in out


def test_quarantine_shows_a_limited_number_of_batches_and_their_total(shell, tmp_path):
    for number in range(5):
        refuse(tmp_path, f"number {number}")
    out = shell("quarantine", "--limit", "2")[1]
    assert "number 1" in out
    assert "number 2" not in out
    assert "3 more: --limit 5" in out


@pytest.mark.parametrize(
    ("spec", "wire_format"),
    [("otlp:http://x", "otlp-protobuf"), ("loki:http://x", "loki-json")],
)
def test_a_batch_of_a_sink_is_one_line_a_record(spec, wire_format):
    sink: object = sink_of(spec, Settings())
    records = [LogRecord(body=f"größe {n}", attributes={"n": n}) for n in range(3)]
    body = sink.pack([sink.encode(record) for record in records])  # type: ignore[attr-defined]
    lines = lines_of(wire_format, body)
    assert len(lines) == 3
    assert all(f"größe {n}" in line for n, line in enumerate(lines))


def test_a_batch_for_loki_in_protobuf_is_one_line_a_record():
    pytest.importorskip("cramjam", reason="needs the extra `loki`")
    sink = LokiSink("http://x", format="protobuf")
    body = sink.pack([sink.encode(LogRecord(body=f"größe {n}")) for n in range(2)])
    lines = lines_of(sink.wire_format, body)
    assert [json.loads(line)[1] for line in lines] == ["größe 0", "größe 1"]


def test_a_file_that_is_not_a_quarantine_is_named(shell, tmp_path):
    refuse(tmp_path, "a")
    refuse(tmp_path, "b")
    (found, _) = held(tmp_path)
    found.path.write_bytes(b"notes" * 100)
    out = shell("quarantine")[1]
    assert f"✗ {found.path}: is not a segment" in out
    assert '"body":"b"' in out


def test_a_batch_of_an_unknown_format_is_shown_if_it_is_text():
    assert lines_of("mine", b"one\ntwo") == ["one", "two"]
    assert lines_of("mine", b"\xff\xfe") == ["2 bytes of mine: fffe"]
    for wire_format in ("otlp-protobuf", "otlp-json", "loki-json", "loki-protobuf"):
        (line,) = lines_of(wire_format, b"\xff" * 100)
        assert line == f"100 bytes of {wire_format}: {'ff' * 32}…"


# ---- purge


def test_purge_deletes_orphans_and_keeps_the_directories_of_living_processes(shell, tmp_path):
    dead = leave(tmp_path, ("a", "b"))
    refuse(tmp_path, "bad")
    living = make_spool(tmp_path)
    living.append(*packed("mine"))
    code, out, err = shell("purge", "--yes")
    assert (code, err) == (0, "")
    assert f"{dead}: 2 records" in out
    assert f"✓ deleted {dead}\n" in out
    assert not dead.exists()
    assert living.directory is not None
    assert living.directory.exists()
    assert len(held(tmp_path)) == 1
    living.close()


def test_purge_of_the_quarantine_leaves_the_spool(shell, tmp_path):
    dead = leave(tmp_path, ("a",))
    refuse(tmp_path, "bad")
    code, out, _ = shell("purge", "--quarantine", "--yes")
    assert code == 0
    assert "quarantine: 1 record" in out
    assert held(tmp_path) == []
    assert dead.exists()


def test_purge_needs_a_yes(shell, tmp_path, monkeypatch):
    dead = leave(tmp_path, ("a",))
    code, out, err = shell("purge")
    assert code == 1
    assert "1 record" in out
    assert "--yes" in err
    monkeypatch.setattr(type(sys.stdin), "isatty", lambda _self: True, raising=False)
    for answer, gone in ((False, False), (True, True)):
        monkeypatch.setattr(
            "typer.confirm", lambda *_a, abort, answer=answer: answer or abort_now()
        )
        assert shell("purge")[0] == (0 if answer else 1)
        assert dead.exists() is not gone


def abort_now():
    import typer

    raise typer.Abort


def test_purge_keeps_files_that_are_not_the_spools(shell, tmp_path):
    dead = leave(tmp_path, ("a",))
    (dead / "notes.txt").write_text("mine")
    code, out, _ = shell("purge", "--yes")
    assert code == 1
    assert f"✗ kept {dead}" in out
    assert (dead / "notes.txt").exists()


def test_purge_of_one_sink_leaves_the_others(shell, tmp_path):
    dead, other = leave(tmp_path, ("a",)), leave(tmp_path, ("b",), name="other")
    assert shell("purge", "--sink", "other", "--yes")[0] == 0
    assert dead.exists()
    assert not other.exists()


def test_a_directory_that_a_process_owns_by_now_is_not_purged(tmp_path):
    leave(tmp_path, ("a",))
    (report,) = survey(tmp_path / "spool")
    living = make_spool(tmp_path)
    assert living.adopt() == 1
    assert not purge_directory(report.directories[0])
    assert living.pending_records == 1
    living.close()


@pytest.mark.skipif(os.name != "posix", reason="deletes an open file")
def test_a_quarantine_that_cannot_be_deleted_is_named(shell, tmp_path, monkeypatch):
    refuse(tmp_path, "bad")
    monkeypatch.setattr(QuarantineFile, "remove", failing(OSError(5, "Input/output error")))
    code, out, _ = shell("purge", "--quarantine", "--yes")
    assert code == 1
    assert "Input/output error" in out
