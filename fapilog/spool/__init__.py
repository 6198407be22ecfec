"""The spool stores batches of log records on disk while a backend is unreachable.

The batches stay on disk when the process ends, and a later process sends them.  The package
``fapilog.delivery`` uses :class:`Spool` and :class:`Quarantine`; the command line uses
``fapilog.spool.survey``.  The spool neither reads records nor calls sinks: to the spool, a batch
is a byte string with one severity number per record.  Read ``fapilog.spool.spool`` first, then
``fapilog.spool.store``; ``fapilog.spool.format`` describes the file format.

Terms
-----

* The wire format is the format in which a sink encodes (packs) a batch.
* A frame is one batch on disk, with a header.  A segment is a file that contains frames.
* A frame is acknowledged (:meth:`Spool.ack`) when the backend has accepted or refused its
  records, or when fapilog has dropped them.  Normally, an acknowledged frame is not sent again.
* To adopt the directory of a dead process, a process locks the directory, sends its frames, and
  removes it when all frames are acknowledged.

Guarantees
----------

* When :meth:`Spool.append` returns, the batch is in the page cache and survives SIGKILL.
  After the next sync, it also survives a power failure.  A sync follows within
  ``sync_interval`` (0.5 s).  With ``sync="always"``, or if a record has a severity number of
  21 (FATAL) or more, ``append`` syncs before it returns.
* Each batch is delivered at least once.  After a restart, an acknowledged batch is delivered
  again only if an older batch was not acknowledged, or if a power failure damaged the cursor
  file.
* The batches of one process are first in, first out.  A process alternates between its own
  batches and the batches of dead processes, and reads the oldest directory of a
  dead process first.
* If a frame is damaged, only the records in this frame are lost, and the process still starts.
  Lost records are counted (:attr:`Spool.corrupt`) and reported on standard error.
* ``max_bytes`` and ``min_free`` limit the space on disk.  The spool needs memory for at most
  one frame (up to 64 MiB) and a cache of 4 MiB.
* A process neither writes nor deletes the files of another running process.

Files
-----

::

    <directory>/                     the directory that the user chose
      <sink name>~<digest>/          mode 0700; in the name, characters other than A-Za-z0-9._-
                                     become %XX; if the destination is known, a ~ and a digest
                                     of the wire format and the destination follow
        destination                  the sink's name, wire format and destination
        <start ns>-<pid>-<random>/   mode 0700; one per process, created by its first append
          lock                       locked, like the directory itself, while the process runs
          credentials                a salted digest of the sink's credentials
          cursor                     a sequence number: all frames below it are acknowledged
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

``append`` writes the batch at the end of a segment with one write.  If a full disk cuts the write
short, ``append`` removes the incomplete frame; if the removal fails too, the next batch begins a
new segment.  Only one process ever writes to a segment: a restarted process creates a new
directory and adopts the directory of the dead process.  The locks show whether a process is
running.  The process id does not, because the system reuses ids.

``read`` returns frames in order, and ``ack`` may acknowledge them in any order.  A segment is
deleted when all of its frames are acknowledged.

All other methods may run during a ``sync``, which takes as long as the disk needs.  A failed
sync is not repeated, because the system may have dropped the pages that it could not write,
and would then report success.  Instead, the next batch begins a new segment.

Another program may delete, replace or truncate files of a running process.  The spool compares
inode numbers and sizes to detect this.  Frames that are still in memory or in an open file are
written again (see ``fapilog.spool.salvage``); all other frames of the file are lost.

A fork copies file descriptors, and the copies share one lock.  Unlocking a copy would release the
parent's lock.  So the child only closes its copies, and creates a separate directory.

If a segment has a later format version, belongs to another user or cannot be read, the spool
reports this on standard error and leaves the segment unchanged.
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
