"""The spool keeps batches on disk while a backend is down; they outlive their process.

``delivery`` is the only user of :class:`Spool` and :class:`Quarantine`; the
command line also uses ``survey``.  Nothing here knows records or sinks: a batch
consists of bytes and one severity number per record.  The package imports ``process`` (its
``files`` hold the system calls), ``diagnostics``, ``severity`` and ``errors``.
Read ``spool`` first, then ``store``; ``format`` describes the bytes.

Promises
--------

* When :meth:`Spool.append` returns, the batch is in the page cache and
  survives SIGKILL.  It survives a power failure after the next sync:
  at most ``sync_interval`` (0.5 s) later, earlier if its segment is full, at
  once for a batch with a severity number of 21 (FATAL) or more, and before
  ``append`` returns with ``sync="always"``.
* Each batch is delivered at least once.  A settled batch is delivered again
  only if an older batch was not settled, or if a power failure lost the cursor.
* The batches of each process are first in, first out.  Batches of dead
  processes alternate with the process's own, the oldest directory first.
* Damage to a frame loses only that frame, and never prevents a start.  Lost records
  are counted (:attr:`Spool.corrupt`) and announced.
* Everything is bounded: bytes on disk by ``max_bytes`` and ``min_free``,
  memory by one frame (64 MiB at most), a cache of 4 MiB, and small counts.
* No process writes to, or deletes, files of another living process.

Files
-----

::

    <directory>/                     the user's choice
      <sink name>~<digest>/          0700; characters other than A-Za-z0-9._- as %XX; the
                                     digest of the sink's destination, if it has one
        destination                  the destination in words, for people
        <start ns>-<pid>-<random>/   0700; one per process, created by its first append
          lock                       locked, like the directory, while the process lives
          credentials                a salted digest of the sink's credentials, if it has any
          cursor                     the sequence below which everything is settled
          00000001.seg ...           0600; a header, then frames of one batch each
        quarantine/                  batches that a backend will never take
          <ns>-<pid>-<random>.seg    the same format, with a reason in each frame
          <ns>-<pid>-<random>.credentials   the file's digest of the credentials

Each frame header has its own checksum, separate from the payload's, so its
lengths lead to the next frame even if the payload is damaged.  If the header is
damaged, the reader searches for the magic of the next frame.  A frame also names
its wire format, so it can be used even if the segment's header is lost.

Life of a batch
---------------

``append`` is one write to a file that is opened for appending.  If a full disk
cuts the write short, the incomplete frame is removed; if that fails too, the
segment is sealed and a new one begins.  No second process ever appends to a file:
a restarted process creates a new directory.  It also adopts the directory of the
dead process: it locks the directory, reads it, and removes it after the last batch.
Only the locks show whether a process is alive, never its id.

``read`` returns frames in order, ``ack`` settles them in any order.  The
cursor is the lowest sequence that is not settled; a segment is deleted when all
of its frames are settled.

``sync`` may take as long as the disk needs; all other methods may run at the same
time.  A failed sync is not repeated, because the system may have dropped the
pages that it could not write and would report success: the segment is sealed,
and a new one begins.

Somebody else may delete, replace or cut files of a living process.  Each check
compares inodes and sizes.  Frames in memory and in open files are written
again (``salvage``); all others count as lost.

A fork copies descriptors, and a lock belongs to all copies.  The child closes
its copies without unlocking (:meth:`Spool.after_fork`) and creates its own
directory, so the parent's directory becomes an orphan only when the parent dies.

Other releases
--------------

Each segment names its format version.  Segments of a later version (after a
downgrade), files of other users and unreadable files are announced and stay
unchanged.
"""

from fapilog.spool.directory import Owner, announce_strangers
from fapilog.spool.options import SpoolFullError, SpoolOptions
from fapilog.spool.quarantine import Quarantine
from fapilog.spool.spool import Spool
from fapilog.spool.store import Frame

__all__ = [
    "Frame",
    "Owner",
    "Quarantine",
    "Spool",
    "SpoolFullError",
    "SpoolOptions",
    "announce_strangers",
]
