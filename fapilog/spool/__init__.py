"""The spool keeps batches on disk while a backend is down, even after the process has ended.

``delivery`` uses :class:`Spool` and :class:`Quarantine`; the command line also uses
``survey``.  This package does not know records or sinks: for it, a batch consists of bytes and
one severity number per record.  Read ``spool`` first, then ``store``; ``format`` describes the
file format.

Promises
--------

* When :meth:`Spool.append` returns, the batch is in the page cache and survives SIGKILL.
  After the next sync, it also survives a power failure.  A sync follows within
  ``sync_interval`` (0.5 s), immediately for a batch with a severity number of 21 (FATAL) or
  more, and before ``append`` returns with ``sync="always"``.
* Each batch is delivered at least once.  A settled batch is delivered again
  only if an older batch was not settled, or if a power failure lost the cursor.
* The batches of one process are first in, first out.  A process sends its own batches
  and those of dead processes in turn, the oldest directory first.
* Damage to a frame loses only that frame, and never prevents a start.  Lost records
  are counted (:attr:`Spool.corrupt`) and announced.
* ``max_bytes`` and ``min_free`` limit the space on disk.  Memory holds at most one frame (up
  to 64 MiB) and a cache of 4 MiB.
* A process neither writes nor deletes files of another living process.

Files
-----

::

    <directory>/                     the user's choice
      <sink name>~<digest>/          0700; characters other than A-Za-z0-9._- as %XX; the
                                     digest of the sink's destination, if known
        destination                  a description of the destination
        <start ns>-<pid>-<random>/   0700; one per process, created by its first append
          lock                       locked, like the directory, while the process lives
          credentials                a salted digest of the sink's credentials
          cursor                     the sequence below which everything is settled
          00000001.seg ...           0600; a header, then one frame per batch
        quarantine/                  batches that the backend refused for good
          <ns>-<pid>-<random>.seg    the same format, with a reason in each frame
          <ns>-<pid>-<random>.credentials   a digest of the credentials

The header of a frame has its own checksum, so the reader finds the next frame even if the
payload is damaged.  If the header is damaged, the reader searches for the magic bytes of the
next frame.  Each frame names its wire format, so it can be used without the segment's header.

Life of a batch
---------------

``append`` is one write at the end of a file.  If a full disk cuts the write short, the
incomplete frame is removed; if that fails too, a new segment begins.  Only one process ever
writes to a file: a restarted process creates a new directory and adopts the directory of the
dead process.  It locks this directory, reads the frames, and finally removes the directory.
The locks show whether a process is alive.  Its process id does not, because ids are reused.

``read`` returns frames in order, and ``ack`` settles them in any order.  A segment is
deleted when all of its frames are settled.

All other methods may run during a ``sync``, which takes as long as the disk needs.  A failed
sync is not repeated, because the system may have dropped the pages that it could not write,
and would then report success.  Instead, a new segment begins.

Another program may delete, replace or truncate files of a living process.  Checks of inodes
and sizes detect this.  The frames that are in memory or in an open file are written again
(``salvage``); all others count as lost.

A fork copies file descriptors, and all copies share their locks.  The child closes its copies
without unlocking, and creates its own directory.

Segments of a later format version, files of other users and unreadable files are announced and
remain unchanged.
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
