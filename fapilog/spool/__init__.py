"""The spool: batches wait on disk while a backend is away, and outlive their process.

What is promised
----------------

* What :meth:`Spool.append` returned for survives SIGKILL and any other end of
  the process at once: it is in the page cache.  It survives a power failure
  from the next sync on: ``sync_interval`` (0.5 s) later, sooner where its
  segment is full, at once for a batch
  with a record of severity 21 (FATAL) or more, and before ``append`` returns
  with ``sync="always"``.
* Each batch is delivered at least once.  A batch that was settled comes back
  only if an older one was not, or if a power failure took the cursor.
* First in, first out for each process.  What dead processes left is read in
  between, one batch for one, the oldest directory first.
* A damaged frame costs itself, no other one, and never a start.  What is lost
  is counted (:attr:`Spool.corrupt`) and announced.
* Everything is bounded: bytes on disk by ``max_bytes`` and ``min_free``,
  memory by one frame (64 MiB at most), a cache of 4 MiB, and small counts.
* No process writes to, or deletes, what another one that is alive owns.

Where things are
----------------

::

    <directory>/                     the user's choice
      <sink name>~<digest>/          0700; other characters than A-Za-z0-9._- as %XX; the
                                     digest of the sink's destination, if it has one
        destination                  the same in words, for a person
        <start ns>-<pid>-<random>/   0700; one for each process, made by its first append
          lock                       locked, like the directory, for as long as the process lives
          cursor                     below which sequence everything is settled
          00000001.seg ...           0600; header, then frames of one batch each
        quarantine/                  batches a backend will never take
          <ns>-<pid>-<random>.seg    the same format, with a reason in each frame

The formats are described in :mod:`~fapilog.spool.format` and
:mod:`~fapilog.spool.cursor`.  The fields of every header have a
checksum of their own, apart from that of the payload: a length that can be
trusted leads to the next frame even if the payload is damaged, and where it
cannot, the next frame is found by its magic.  A frame also says which wire
format it holds, so it can stand for itself when a segment's header is lost.

How a batch goes
----------------

``append`` is one write to a file opened for appending.  If it is cut short,
by a full disk, the file is cut back; if that fails too, the segment is sealed
and a new one begun.  No file is ever appended to by a second process: after a
restart there is a new directory, and that of the dead process is adopted,
which means locked, read, and removed with its last batch.  Whether a process
lives is told by its locks alone, never by its id.

Somebody may delete, replace or cut files of a living process.  Each check
compares inodes and sizes; what memory and open files still hold is written
again (:mod:`~fapilog.spool.salvage`), the rest is counted.

Adopting goes in steps of about a millisecond, without the lock of the caller
(:mod:`~fapilog.spool.adoption`).  A segment grows in its store as it
is looked through.  Beside the floor, the cursor notes where in its segment that
is, so a process that adopts a large one begins where the last one stopped.

``read`` hands frames out in order, ``ack`` settles them in any.  The cursor is
the lowest sequence that is not settled; a segment is deleted when all of its
own are.  The cursor has two slots, written in turn, so that one is whole.

``sync`` may take as long as the disk likes and runs beside everything else.
A sync that fails is not repeated, because the system may have dropped the
pages it could not write and would report success: the segment is sealed, and
writing goes on in another one.

A fork copies descriptors, and a lock belongs to all copies.  The child closes
its copies without unlocking (:meth:`Spool.after_fork`) and makes a directory
of its own, so the parent's is an orphan exactly when the parent is dead.

Formats of other releases
-------------------------

Each segment names its version, and
:data:`~fapilog.spool.format.LAYOUTS` has a reader for each version
that was ever written: an upgrade delivers what the old release left.  A later
version, seen after a downgrade, is left alone and announced; so is what is
not this user's, or cannot be read.
"""

from fapilog.spool.options import SpoolFullError, SpoolOptions
from fapilog.spool.owner import Owner, announce_strangers
from fapilog.spool.quarantine import Quarantine
from fapilog.spool.segment import Corruption, Frame
from fapilog.spool.spool import Spool

__all__ = [
    "Corruption",
    "Frame",
    "Owner",
    "Quarantine",
    "Spool",
    "SpoolFullError",
    "SpoolOptions",
    "announce_strangers",
]
