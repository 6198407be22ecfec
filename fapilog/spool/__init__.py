"""The spool keeps batches on disk while a backend is down, even after the process has ended.

``delivery`` uses :class:`Spool` and :class:`Quarantine`; the command line also uses
``survey``.  This package neither reads records nor calls sinks: it treats a batch as bytes with
one severity number per record.  Read ``spool`` first, then ``store``; ``format`` describes the
file format.

Promises
--------

* When :meth:`Spool.append` returns, the batch is in the page cache and survives SIGKILL.
  After the next sync, it also survives a power failure.  A sync follows within
  ``sync_interval`` (0.5 s).  With ``sync="always"``, or if a record has a severity number of
  21 (FATAL) or more, ``append`` syncs before it returns.
* Each batch is delivered at least once.  After a restart, a settled batch is delivered again
  only if an older batch was not settled, or if the cursor was lost in a power failure.
* The batches of one process are first in, first out.  A process sends its own batches
  and those of dead processes in turn, the oldest directory first.
* A damaged frame loses only its own records, and never prevents the process from starting.
  Lost records are counted (:attr:`Spool.corrupt`) and announced.
* ``max_bytes`` and ``min_free`` limit the space on disk.  Memory holds at most one frame (up
  to 64 MiB) and a cache of 4 MiB.
* A process neither writes nor deletes files of another living process.

Files
-----

::

    <directory>/                     the directory that the user chose
      <sink name>~<digest>/          mode 0700; in the name, characters other than A-Za-z0-9._-
                                     become %XX; ~ and the digest of the wire format and the
                                     destination follow if the destination is known
        destination                  the sink's name, wire format and destination
        <start ns>-<pid>-<random>/   mode 0700; one per process, created by its first append
          lock                       locked, like the directory itself, while the process lives
          credentials                a salted digest of the sink's credentials
          cursor                     the sequence number below which all frames are settled
          00000001.seg ...           mode 0600; a header, then one frame per batch
        quarantine/                  batches that the backend refused permanently
          <ns>-<pid>-<random>.seg    the same format, with the backend's reason in each frame
          <ns>-<pid>-<random>.credentials   a digest of the credentials

The header of a frame has its own checksum, so the reader finds the next frame even if the
payload is damaged.  If the header is damaged, the reader searches for the magic bytes of the
next frame.  Each frame identifies its wire format, so frames remain usable if the segment's
header is damaged.

Life of a batch
---------------

``append`` is one write at the end of a file.  If a full disk cuts the write short, the
incomplete frame is removed; if that fails too, a new segment begins.  Only one process ever
writes to a segment: a restarted process creates a new directory and adopts the directory of
the dead process.  To adopt a directory, a process locks it, reads its frames, and removes it
when all frames are settled.  The locks show whether a process is alive.  The process id does
not, because the system reuses ids.

``read`` returns frames in order, and ``ack`` settles them in any order.  A segment is
deleted when all of its frames are settled.

All other methods may run during a ``sync``, which takes as long as the disk needs.  A failed
sync is not repeated, because the system may have dropped the pages that it could not write,
and would then report success.  Instead, a new segment begins.

Another program may delete, replace or truncate files of a living process.  Checks of inodes
and sizes detect this.  The frames that are in memory or in an open file are written again
(``salvage``); all other frames count as lost.

A fork copies file descriptors, and the copies share one lock.  So the child closes its copies
without unlocking, which would release the parent's lock, and creates its own directory.

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
