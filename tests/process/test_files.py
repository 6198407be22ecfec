"""Files that outlive the process: opened safely, locked and synced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fapilog.process.files import (
    APPEND,
    SyncedFile,
    create_file,
    open_file,
    try_lock,
    try_lock_if_possible,
    unlock,
    write_whole,
)
from tests.support.spool import BROKEN, POSIX, failing

pytestmark = POSIX


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_new_file_has_exactly_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        os.close(create_file(tmp_path / "x", APPEND, mode))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


@pytest.mark.parametrize("planted", ["link", "pipe", "directory"])
def test_only_regular_files_are_opened_and_nothing_blocks(tmp_path: Path, planted: str) -> None:
    path = tmp_path / "x"
    (tmp_path / "target").touch()
    if planted == "link":
        path.symlink_to(tmp_path / "target")
    elif planted == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
        open_file(path)


def test_a_lock_is_taken_once_until_it_is_released(tmp_path: Path) -> None:
    first = create_file(tmp_path / "x", APPEND)
    second = open_file(tmp_path / "x")
    assert try_lock(first)
    assert not try_lock(second)
    assert not try_lock_if_possible(second)
    unlock(first)
    assert try_lock(second)
    os.close(first)
    os.close(second)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: real(fd, [b"".join(parts)[:3]]))
    fd = create_file(tmp_path / "x", APPEND)
    write_whole(fd, [b"ab", b"cd", b"ef"])
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"abcdef"


def test_a_file_that_failed_to_sync_is_never_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SyncedFile(tmp_path / "x", create_file(tmp_path / "x", APPEND))
    synced: list[int] = []
    file.write([b"a"])
    monkeypatch.setattr(os, "fdatasync", failing(BROKEN), raising=False)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    monkeypatch.setattr(os, "fdatasync", synced.append, raising=False)
    file.write([b"b"])
    file.sync()
    assert synced == []
    assert file.failed
    file.close()
