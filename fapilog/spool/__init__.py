"""The spool keeps batches on disk while a backend is down; they outlive their process.

``delivery`` uses :class:`Spool` and :class:`Quarantine`; the command line also uses
``survey``.  Nothing here knows records or sinks: a batch consists of bytes and one
severity number per record.  Read ``spool`` first, then ``store``; ``format``
describes the bytes.

Promises
--------

* When :meth:`Spool.append` returns, the batch is in the page cache and survives
  SIGKILL.  After the next sync it survives a power failure.  A sync follows within
  ``sync_interval`` (0.5 s), immediately for a batch with a severity number of 21
  (FATAL) or more, and before ``append`` returns with ``sync="always"``.
* Each batch is delivered at least once.  A settled batch is delivered again
  only if an older batch was not settled, or if a power failure lost the cursor.
* The batches of one process are first in, first out.  A process sends its own batches
  and those of dead processes in turn, the oldest directory first.
* Damage to a frame loses only that frame, and never prevents a start.  Lost records
  are counted (:attr:`Spool.corrupt`) and announced.
* Bytes on disk are limited by ``max_bytes`` and ``min_free``, memory by one frame
  (64 MiB at most) and a cache of 4 MiB.
* A process neither writes nor deletes files of another living process.

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
        quarantine/                  batches that the backend refused for good
          <ns>-<pid>-<random>.seg    the same format, with a reason in each frame
          <ns>-<pid>-<random>.credentials   a digest of the credentials, per file

The header of a frame has its own checksum, so its lengths lead to the next frame even
if the payload is damaged.  If the header is damaged, the reader searches for the magic
of the next frame.  Each frame names its wire format, so it can be used without the
segment's header.

Life of a batch
---------------

``append`` is one write at the end of a file.  If a full disk cuts the write short,
the incomplete frame is removed; if that fails too, a new segment begins.  Only one
process ever writes to a file: a restarted process creates a new directory and adopts
the directory of the dead process.  It locks, reads and finally removes this directory.
The locks show whether a process is alive; its id does not.

``read`` returns frames in order, and ``ack`` settles them in any order.  A segment is
deleted when all of its frames are settled.

All other methods may run during a ``sync``, which takes as long as the disk needs.  A
failed sync is not repeated, because the system may have dropped the pages that it
could not write, and would report success.  Instead, a new segment begins.

Another program may delete, replace or cut files of a living process.  Checks of inodes
and sizes notice it.  The frames that are in memory or in an open file are written
again (``salvage``); all others count as lost.

A fork copies descriptors, and a lock belongs to all copies.  The child closes its
copies without unlocking, and creates its own directory.

Segments of a later format version, files of other users and unreadable files are
announced and stay unchanged.
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
