import errno
import json
import os
import shutil
import stat

import pytest

from fapilog.errors import ConfigurationError, RetryableError
from fapilog.process import files
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks.file import FileSink
from tests.support.files import POSIX, bodies, emit, encoded, file_sinks, rotated

NOT_ROOT = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() == 0, reason="permissions do not bind root"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.jsonl"


@pytest.fixture
def make(path):
    with file_sinks(path) as make_sink:
        yield make_sink


# -- writing ----------------------------------------------------------------------


def test_records_are_appended_as_json_lines(make, path):
    path.write_text('{"body":"before"}\n')
    sink = make()
    emit(sink, "one", "two")
    emit(sink, "three")
    assert bodies(path) == ["before", "one", "two", "three"]
    assert path.read_bytes().endswith(b"\n")


def test_a_batch_is_one_write(make, monkeypatch):
    sink = make()
    sizes = []
    real = os.write

    def write(fd, data):
        sizes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    batch = encoded(sink, *range(100))
    sink.send(batch, 5.0)
    assert sizes == [len(b"".join(batch))]


def test_otlp_files_have_one_logs_data_object_a_batch(make, path):
    sink = make(format="otlp")
    resource = Resource({"service.name": "shop"})
    records = [
        LogRecord(1, 2, 9, "INFO", body, scope=Scope(scope), resource=resource)
        for body, scope in [("one", "a"), ("two\nlines", "b")]
    ]
    sink.send([sink.encode(record) for record in records], 5.0)
    sink.send([sink.encode(records[0])], 5.0)
    first, second = map(json.loads, path.read_text().splitlines())
    (resource_logs,) = first["resourceLogs"]
    assert resource_logs["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "shop"}}
    ]
    assert [
        record["body"]["stringValue"]
        for scope_logs in resource_logs["scopeLogs"]
        for record in scope_logs["logRecords"]
    ] == ["one", "two\nlines"]
    assert len(second["resourceLogs"][0]["scopeLogs"]) == 1


@POSIX
def test_missing_directories_and_the_file_are_for_this_user_only(make, tmp_path):
    before = os.umask(0)
    try:
        make(tmp_path / "a" / "b" / "app.jsonl")
    finally:
        os.umask(before)
    for made, mode in [("a", 0o700), ("a/b", 0o700), ("a/b/app.jsonl", 0o600)]:
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == mode


@POSIX
def test_the_permissions_asked_for_are_given_whatever_the_umask(make, path):
    before = os.umask(0o077)
    try:
        make(mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@POSIX
def test_permissions_of_an_existing_file_stay(make, path):
    path.touch()
    path.chmod(0o640)
    emit(make(), "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@POSIX
def test_a_relative_path_stays_where_it_was_when_the_directory_changes(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sink = make("app.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "app.jsonl").unlink()
    emit(sink, "one")
    assert bodies(tmp_path / "app.jsonl") == ["one"]


def test_with_fsync_a_batch_is_on_the_disk_before_it_counts(make, path, monkeypatch):
    sink = make(fsync=True)
    emit(sink, "one")
    real = os.fsync

    def broken(fd):
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(os, "fsync", broken)
    batch = encoded(sink, "two")
    with pytest.raises(RetryableError, match="the disk failed"):
        sink.send(batch, 5.0)
    monkeypatch.setattr(os, "fsync", real)
    sink.send(batch, 5.0)
    assert bodies(path) == ["one", "two", "two"]  # twice is better than lost


# -- options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"format": "xml"}, "format"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"rotate_every": "week"}, "rotate_every"),
        ({"rotate_every": 0}, "rotate_every"),
        ({"rotate_every": float("nan")}, "rotate_every"),
        ({"compress": "zip"}, "compress"),
        ({"keep_count": -1}, "keep_count"),
        ({"keep_age": 0}, "keep_age"),
        ({"keep_bytes": "1MB"}, "keep_bytes"),
        ({"mode": 0o1777}, "mode"),
        ({"mode": "600"}, "mode"),
    ],
)
def test_a_wrong_option_is_named_with_the_fix(path, options, named):
    with pytest.raises(ConfigurationError, match=rf"^{named}=.* use "):
        FileSink(path, **options).open()
    assert not path.exists()


def test_a_path_that_rotated_files_could_be_taken_for_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"path=.*without \.gz"):
        FileSink(tmp_path / "app.gz").open()


@POSIX
def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="it is a directory; give a file in it"):
        FileSink(tmp_path).open()


@POSIX
def test_a_symbolic_link_is_refused_and_what_it_leads_to_stays(path, tmp_path):
    target = tmp_path / "precious"
    target.write_text("keep")
    path.symlink_to(target)
    with pytest.raises(ConfigurationError, match="it is a symbolic link; give the path"):
        FileSink(path).open()
    assert target.read_text() == "keep"


@POSIX
def test_a_link_to_the_directory_is_followed(make, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    emit(make(tmp_path / "link" / "app.jsonl"), "one")
    assert bodies(tmp_path / "real" / "app.jsonl") == ["one"]


@POSIX
def test_pipes_and_devices_are_refused(path):
    os.mkfifo(path)
    for special in (path, "/dev/null"):
        with pytest.raises(ConfigurationError, match=r"not a regular file; .* ConsoleSink"):
            FileSink(special).open()


def test_a_file_where_a_directory_should_be_is_refused(path):
    path.write_text("")
    with pytest.raises(ConfigurationError, match="give a path in a directory this user"):
        FileSink(path / "app.jsonl").open()


def test_a_path_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="path="):
        FileSink(tmp_path / "nul\0.jsonl").open()


@NOT_ROOT
def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match="Permission denied; give a path"):
        FileSink(directory / "app.jsonl").open()


def test_rotation_in_a_directory_that_cannot_be_written_is_refused(path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(ConfigurationError, match="rotation must rename files"):
        FileSink(path, max_bytes=100).open()
    sink = FileSink(path)
    sink.open()
    sink.close()


# -- changes from outside ----------------------------------------------------------


@POSIX
@pytest.mark.parametrize("change", ["renamed", "removed", "directory removed", "replaced"])
def test_the_next_batch_goes_to_a_file_at_the_path(make, tmp_path, change):
    path = tmp_path / "logs" / "app.jsonl"
    sink = make(path)
    emit(sink, "before")
    moved = tmp_path / "moved.jsonl"
    if change == "renamed":
        path.rename(moved)
    elif change == "removed":
        path.unlink()
    elif change == "directory removed":
        shutil.rmtree(path.parent)
    else:
        path.rename(moved)
        path.write_text('{"body":"created by logrotate"}\n')
    emit(sink, "after")
    assert bodies(path)[-1] == "after"
    assert "before" not in bodies(path)
    if moved.exists():
        assert bodies(moved) == ["before"]


def test_a_file_truncated_from_outside_goes_on_at_its_start(make, path):
    sink = make(max_bytes=10_000)
    emit(sink, *["before"] * 10)
    os.truncate(path, 0)
    emit(sink, "after")
    assert bodies(path) == ["after"]  # no hole of zeros before it
    assert rotated(path) == []


def test_a_file_truncated_from_outside_is_announced_with_what_to_do(make, path, capsys):
    sink = make()
    emit(sink, "before")
    size = path.stat().st_size
    shutil.copyfile(path, path.with_suffix(".1"))  # as logrotate's copytruncate does
    os.truncate(path, 0)
    emit(sink, "after")
    said = capsys.readouterr().err
    assert f"app.jsonl had {size} bytes and was truncated by another program" in said
    assert "use logrotate's create" in said


def test_a_file_that_grows_by_other_hands_or_was_renamed_is_not_called_truncated(
    make, path, capsys
):
    sink, other = make(), make()
    for _ in range(3):
        emit(sink, "a")
        emit(other, "b")
    path.rename(path.with_suffix(".1"))
    emit(sink, "c")
    emit(other, "d")
    assert "truncated" not in capsys.readouterr().err


@POSIX
def test_a_link_put_in_the_files_place_is_not_followed(make, path, tmp_path):
    sink = make()
    emit(sink, "before")
    target = tmp_path / "precious"
    target.write_text("keep")
    path.unlink()
    path.symlink_to(target)
    batch = encoded(sink, "after")
    with pytest.raises(RetryableError):
        sink.send(batch, 5.0)
    assert target.read_text() == "keep"
    path.unlink()
    sink.send(batch, 5.0)
    assert bodies(path) == ["after"]


@POSIX
def test_a_file_rotated_by_another_process_while_it_is_opened_is_opened_anew(
    make, path, monkeypatch
):
    sink = make()
    emit(sink, "before")
    path.rename(path.with_name("moved"))
    path.touch()
    real = files.open_unplanted

    def open_too_late(wanted):
        monkeypatch.setattr("fapilog.sinks.file.open_unplanted", real)
        path.unlink()
        return real(wanted)

    monkeypatch.setattr("fapilog.sinks.file.open_unplanted", open_too_late)
    emit(sink, "after")
    assert bodies(path) == ["after"]


def test_a_line_a_crash_cut_short_stays_alone_on_its_line(make, path):
    path.write_text('{"body":"whole"}\n{"body":"cut sh')
    emit(make(), "next")
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"body":"whole"}', '{"body":"cut sh']
    assert json.loads(lines[2])["body"] == "next"


COMMANDS = "\x1b\x7f\x9b\u202e\u2028\x85\u2066\u200f"


@pytest.mark.parametrize("form", ["json", "otlp"])
def test_no_character_that_a_terminal_obeys_is_in_the_file(tmp_path, form):
    path = tmp_path / "app.jsonl"
    with file_sinks(path) as make:
        sink = make(format=form)
        record = LogRecord(1, 1, 9, "INFO", f"a{COMMANDS}b", {f"k{COMMANDS}": COMMANDS})
        record.scope = Scope(f"s{COMMANDS}")
        sink.send([sink.encode(record)], 5)
    text = path.read_text(encoding="utf-8")
    assert [c for c in COMMANDS if c in text.rstrip("\n")] == []
    assert f"a{COMMANDS}b" in list(strings(json.loads(text)))


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("mode", "refused"), [(0o1777, True), (0o755, False)])
def test_a_file_that_another_user_put_where_all_can_write_is_refused(tmp_path, mode, refused):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(mode)
    path = directory / "app.jsonl"
    path.write_text("")
    path.chmod(0o666)
    os.chown(path, 12345, -1)
    sink = FileSink(path)
    if not refused:
        sink.open()
        sink.close()
        return
    with pytest.raises(ConfigurationError, match=r"belongs to user 12345.*own, or remove"):
        sink.open()
    assert path.read_text() == ""


def plant(path):
    """Plant a file, as another user would to read the records."""
    path.write_text("")
    path.chmod(0o666)
    os.chown(path, 12345, -1)


def sticky(path):
    path.mkdir()
    path.chmod(0o1777)
    return path


NEEDS_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"
)


@NEEDS_ROOT
@pytest.mark.parametrize("depth", [1, 2])
def test_a_file_in_another_users_directory_in_a_shared_one_is_refused(tmp_path, depth):
    directory = sticky(tmp_path / "shared")
    for number in range(depth):
        directory = directory / f"planted-{number}"
        directory.mkdir()
        os.chown(directory, 12345, -1)
    plant(directory / "app.jsonl")
    with pytest.raises(ConfigurationError, match="belongs to user 12345"):
        FileSink(directory / "app.jsonl").open()
    assert (directory / "app.jsonl").read_text() == ""


@NEEDS_ROOT
def test_a_file_behind_another_users_link_in_a_shared_directory_is_refused(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    plant(home / "app.jsonl")
    os.chown(home, 12345, -1)
    link = sticky(tmp_path / "shared") / "logs"
    link.symlink_to(home)
    with pytest.raises(ConfigurationError, match=r"belongs to user 12345|Permission denied"):
        FileSink(link / "app.jsonl").open()
    assert (home / "app.jsonl").read_text() == ""


@NEEDS_ROOT
def test_a_service_directory_of_another_user_is_used(tmp_path):
    directory = tmp_path / "service"
    directory.mkdir()
    os.chown(directory, 12345, -1)
    plant(directory / "app.jsonl")
    sink = FileSink(directory / "app.jsonl")
    sink.open()
    sink.close()


@POSIX
def test_a_file_of_this_user_under_a_second_name_in_a_shared_directory_is_refused(tmp_path):
    own = tmp_path / "precious"
    own.write_text("precious")
    path = sticky(tmp_path / "shared") / "app.jsonl"
    os.link(own, path)
    with pytest.raises(ConfigurationError, match=r"second name.*remove the file"):
        FileSink(path).open()
    assert own.read_text() == "precious"


@POSIX
def test_a_file_of_this_user_in_a_shared_directory_is_used(tmp_path):
    path = sticky(tmp_path / "shared") / "app.jsonl"
    path.write_text("")
    sink = FileSink(path)
    sink.open()
    sink.close()
