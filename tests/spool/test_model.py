"""The spool against a model, through writes, crashes, damage, and a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fapilog.spool import Frame
from fapilog.spool.survey import purge_directory, survey
from tests.support.spool import crash, make_spool, segments


@dataclass(eq=False)
class Batch:
    """One batch as the model sees it.

    A batch is not sure if the spool may or may not return it, and lost if a
    later one was returned instead.  The next process counts a lost batch
    again, and finds its damaged payload again.
    """

    body: bytes
    settled: bool = False
    out: bool = False
    sure: bool = True
    lost: bool = False


@dataclass(eq=False)
class Process:
    """The batches of one process's directory, in order."""

    batches: list[Batch] = field(default_factory=list)
    is_adopted: bool = False

    def die(self) -> None:
        """Forget the settled batches that no later process will read again."""
        is_start = True
        kept = []
        for batch in self.batches:
            if batch.settled and is_start:
                continue
            if not batch.settled and not batch.lost:
                is_start = False
            batch.sure = batch.sure and not batch.settled
            batch.settled = batch.out = batch.lost = False
            kept.append(batch)
        self.batches = kept
        self.is_adopted = False


class SpoolMachine(RuleBasedStateMachine):
    """Every rule is an event in the life of a spool; the model knows which batches may be read."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.dead: list[Process] = []
        self.out: list[tuple[Frame, Batch]] = []
        self.count = 0

    @initialize(cache_bytes=st.sampled_from([0, 3000, 1 << 20]))
    def start(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        self.begin()

    def begin(self) -> None:
        self.spool = make_spool(self.directory, cache_bytes=self.cache_bytes)
        self.own = Process()

    def body(self, size: int) -> bytes:
        self.count += 1
        return b"<%06d>" % self.count + b"." * size

    # ---- what happens

    @rule(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6))
    def write(self, sizes: list[int]) -> None:
        for size in sizes:
            self.append(size, 9)

    @rule(size=st.integers(0, 3000), severity=st.sampled_from([9, 21]))
    def write_what_is_being_sent(self, size: int, severity: int) -> None:
        frame, batch = self.append(size, severity, read=True)
        self.out.append((frame, batch))

    def append(self, size: int, severity: int, *, read: bool = False) -> tuple[Frame, Batch]:
        batch = Batch(self.body(size), out=read)
        self.own.batches.append(batch)
        return self.spool.append(batch.body, [severity], read=read), batch

    @rule(size=st.integers(0, 3000), cut=st.floats(0, 0.99), stuck=st.booleans())
    def write_to_a_full_disk(self, size: int, cut: float, stuck: bool) -> None:
        real = os.writev

        def writev(fd, parts):
            data = b"".join(parts)
            real(fd, [data[: int(len(data) * cut)]])
            raise OSError(errno.ENOSPC, "No space left on device")

        def ftruncate(fd, size):
            if stuck:
                raise OSError(errno.EIO, "Input/output error")
            os.truncate(fd, size)

        with (
            mock.patch("os.writev", writev),
            mock.patch("os.ftruncate", ftruncate),
            pytest.raises(OSError, match="No space"),
        ):
            self.spool.append(self.body(size), [9])

    @rule()
    def sync(self) -> None:
        self.spool.flush()

    @rule()
    def sync_that_fails(self) -> None:
        with mock.patch("os.fdatasync", side_effect=OSError(errno.EIO, "Input/output error")):
            self.spool.flush()

    @rule(times=st.integers(1, 6))
    def read_some(self, times: int) -> None:
        for _ in range(times):
            self.read()

    def read(self) -> None:
        frame = self.spool.read()
        if frame is None:
            waiting = [b for b in self.unread(self.own) if b.sure]
            waiting += [b for p in self.adopted for b in self.unread(p) if b.sure]
            assert not waiting, "there was something to read"
            return
        process = next(p for p in (self.own, *self.dead) if self.holds(p, frame.body))
        assert frame.is_adopted == (process is not self.own)
        if process is not self.own:
            older = self.adopted[: self.adopted.index(process)]
            assert not any(b.sure for p in older for b in self.unread(p)), "not the oldest"
        for batch in self.unread(process):
            if batch.body == frame.body:
                break
            assert not batch.sure, "not first in, first out"
            batch.lost = True  # damaged, or settled before the crash
        batch.out = True
        self.out.append((frame, batch))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.out) - 1))
        frame, batch = self.out.pop(index)
        self.spool.ack(frame)
        batch.settled = True
        if data.draw(st.booleans()):
            self.spool.ack(frame)

    @rule(adopt=st.booleans())
    def crash(self, adopt: bool) -> None:
        crash(self.spool)
        self.follow(adopt)

    @rule(adopt=st.booleans())
    def reopen(self, adopt: bool) -> None:
        self.spool.close()
        self.follow(adopt)

    def follow(self, adopt: bool) -> None:
        """Start another process."""
        self.dead.append(self.own)
        for process in self.dead:
            process.die()
        self.out.clear()
        self.begin()
        if adopt:
            self.adopt()

    @rule()
    def adopt(self) -> None:
        least = sum(b.sure for p in self.dead if not p.is_adopted for b in p.batches)
        most = sum(len(p.batches) for p in self.dead if not p.is_adopted)
        assert least <= self.spool.adopt() <= most
        for process in self.dead:
            process.is_adopted = True

    @precondition(lambda self: any(p.batches for p in (self.own, *self.dead)))
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([p for p in (self.own, *self.dead) if p.batches]))
        batch = data.draw(st.sampled_from(process.batches))
        for path in segments(self.directory):
            content = bytearray(path.read_bytes())
            at = content.find(batch.body[:8])
            if at >= 0:
                content[at + data.draw(st.integers(0, len(batch.body) - 1))] ^= 0x55
                path.write_bytes(content)
                batch.sure = False  # the batch may have been read, or be in memory
                return

    @rule()
    def purge_orphans(self) -> None:
        for sink in survey(self.directory):
            for report in sink.directories:
                assert report.is_alive or purge_directory(report)
        self.dead = [process for process in self.dead if process.is_adopted]

    # ---- what must hold

    @property
    def adopted(self) -> list[Process]:
        return [process for process in self.dead if process.is_adopted]

    @staticmethod
    def unread(process: Process) -> list[Batch]:
        return [b for b in process.batches if not (b.out or b.settled or b.lost)]

    @staticmethod
    def holds(process: Process, body: bytes) -> bool:
        return any(batch.body == body for batch in SpoolMachine.unread(process))

    @invariant()
    def counts_are_right(self) -> None:
        # The spool notices a loss at the end of the segment.
        held = [b for p in (self.own, *self.adopted) for b in p.batches if not b.settled]
        least = sum((b.sure or b.out) and not b.lost for b in held)
        assert least <= self.spool.pending_records <= len(held)
        unread = [b for b in held if not b.out]
        least = sum(b.sure and not b.lost for b in unread)
        assert least <= self.spool.unread_records <= len(unread)
        assert self.spool.pending_bytes <= self.spool.disk_bytes

    def teardown(self) -> None:
        crash(self.spool)
        self.follow(adopt=True)
        while self.spool.unread_records:
            self.read()
        self.read()
        for frame, _ in self.out:
            self.spool.ack(frame)
        assert self.spool.pending_records == 0
        self.spool.close()
        assert segments(self.directory) == []
        shutil.rmtree(self.directory)


NEEDS = pytest.mark.skipif(
    not hasattr(os, "writev") or not hasattr(os, "fdatasync"), reason="needs writev, fdatasync"
)
TestSpoolAgainstAModel = pytest.mark.slow(NEEDS(SpoolMachine.TestCase))
TestSpoolAgainstAModel.settings = settings(
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
