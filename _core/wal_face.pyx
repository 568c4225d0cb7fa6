"""The Python face of the write-ahead log, for tests, tools and what is not hot."""

import os

from libc.stdlib cimport free, malloc
from libc.string cimport memset
from posix.unistd cimport getpid

from paxos._core.buffer cimport buffer_from_bytes, buffer_release
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport RECORD_MARK, Record, RecordList
from paxos._core.failpoint cimport AT_WAL_CLOSE, failpoint
from paxos._core.log_reader cimport DAMAGE_MISSING, LogReader, collect, take_views
from paxos._core.segment cimport close_file

from paxos._core.effects import RecordView
from paxos.errors import StorageError

cdef extern from "errno.h":
    int ENOSPC, EUCLEAN


cdef class WalFace(Wal):
    """A :class:`paxos._core.wal.Wal` that Python can append to, scan and read.

    The native methods ``append``, ``sync``, ``scan`` and ``read`` keep their names to themselves, so the ones here
    are longer; ``paxos.storage.wal.WriteAheadLog`` has the short ones.
    """

    def append_views(self, records) -> list[int]:
        """Append ``RecordView`` objects in one write and return their positions. Not durable before :meth:`sync_now`.

        A ``value_crc`` of 0 is filled in; any other is stored as it is.
        """
        cdef size_t i = 0
        cdef int status
        items = list(records)
        cdef size_t count = len(items)
        cdef Record *native = <Record *>malloc((count + 1) * sizeof(Record))
        if native == NULL:
            raise MemoryError(f"no memory for {count} records")
        memset(native, 0, (count + 1) * sizeof(Record))
        try:
            for i in range(count):
                view = items[i]
                native[i].kind = view.kind
                native[i].value_kind = view.value_kind
                native[i].group = view.group
                native[i].slot = view.slot
                native[i].ballot = view.ballot
                native[i].mark = view.mark
                if view.value:
                    native[i].value = buffer_from_bytes(view.value)
                    native[i].length = <uint32_t>native[i].value.size
                    native[i].value_crc = view.value_crc or crc32c(0, native[i].value.data, native[i].length)
            with nogil:
                status = self.append(native, count)
            self._check(status, "appending to the log")
            return [native[i].position for i in range(count)]
        finally:
            for i in range(count):
                buffer_release(native[i].value)
            free(native)

    def sync_now(self) -> None:
        """Make everything appended durable. Raises ``StorageError``; after that the log takes nothing more."""
        cdef int status
        with nogil:
            status = self.sync()
        self._check(status, "syncing the log")

    def replay(self):
        """Yield every record of the log, oldest first, holding one segment in memory at a time.

        The first pass that reaches the end cuts a torn tail and opens the log for appends. A record that
        ``is_damaged`` has a good header and no trustworthy value.

        Raises:
            StorageError: damage that may hide promises. Nothing was changed.
        """
        cdef RecordList records
        cdef int status = self.scan_begin()
        while status == 0 and self.reader.more:
            memset(&records, 0, sizeof(RecordList))
            with nogil:
                status = self.reader.step(collect, &records)
            yield from take_views(&records)
        with nogil:
            status = self.scan_end(status)
        self._check(status, "reading the log")

    def begin_behind(self, reason: int, above_segment: int = 0) -> None:
        """Put the log into quarantine: begin a fresh segment that says so, above everything that exists.

        For a log that was scanned (with ``through_damage`` where damage may hide promises). From now on whoever
        opens it learns at once that its owner never votes again.

        Args:
            reason: an ``effects.QuarantineReason``, not 0; of a log that is in quarantine the first one stays.
            above_segment: the number of the highest segment that is known to have existed.

        Raises:
            StorageError: the segment could not be written.
        """
        cdef int status = 0
        cdef uint64_t segment
        if reason < 1:
            raise ValueError("a quarantine needs a reason")
        if not self.scanned and not self.may_begin_behind:
            raise StorageError(f"the log in {self.path!r} has not been scanned")
        segment = 1 + max(self.reader.newest, self.reader.state.next, self.segment, above_segment)
        if not self.state.quarantine:
            self.state.quarantine = reason
            if self.fd >= 0 and segment == self.segment + 1:
                status = self._roll(0)
            else:
                status = self.sync() if self.fd >= 0 else 0
                close_file(&self.fd)
                if status == 0:
                    status = self._begin_behind(segment)
        self._check(status, "beginning a segment in quarantine")

    def scan_views(self) -> list[RecordView]:
        """Return what :meth:`replay` yields."""
        return list(self.replay())

    def last_state(self) -> dict[str, object]:
        """Return what the newest segment says about the log, without opening it for appends: see ``LogReader.results``.

        The next incarnation is one more than this one's ``"incarnation"``.

        Raises:
            StorageError: the newest segment cannot be trusted.
        """
        cdef LogReader reader = LogReader(
            self.path, node_id=self.node_id, cluster=self.cluster, storage=bytes(self.storage[:16]))
        cdef int status
        reader.oldest = reader.newest
        reader.state.oldest = reader.newest
        with nogil:
            status = reader.run(NULL, NULL)
        reader.release()
        if status == EUCLEAN and reader.reason != DAMAGE_MISSING:
            raise StorageError(f"reading the newest segment of {self.path!r}: {reader.damage}")
        if status != EUCLEAN:
            self._check(status, "reading the newest segment")
        return reader.results()

    def read_value(self, position: int, length: int, value_crc: int) -> bytes:
        """Return the value of the record at ``position``, checked. Any thread may call this.

        Raises:
            StorageError: it is damaged, trimmed, or never was there.
        """
        cdef uint64_t where = position
        cdef uint32_t size = length
        cdef uint32_t crc = value_crc
        cdef int status
        cdef bytearray out = bytearray(size)
        cdef uint8_t *data = <uint8_t *>out
        with nogil:
            status = self.read(where, size, crc, data)
        self._check(status, f"reading the record at {position >> 32:016x}:{position & 0xFFFFFFFF}")
        return bytes(out)

    def mark_if_idle(self, now_us: int) -> int:
        """Call ``maybe_mark``; return the time in microseconds at which it wants to be called again, or 0."""
        self._check(self.maybe_mark(now_us), "marking the log")
        return self.next_mark_us

    def recycle_below(self, segment: int) -> None:
        """Give up the segments below ``segment``, whose slots a durable trim record covers."""
        self._check(self.recycle(segment), "recycling segments")

    def inject_failure(self, operation: str, error: int) -> None:
        """For tests: let every following ``"sync"``, ``"write"`` or ``"space"`` fail with this errno; 0 ends it."""
        if operation == "sync":
            self.fail_sync = error
        elif operation == "write":
            self.fail_write = error
        elif operation == "space":
            self.pool.fail_space = error
        else:
            raise ValueError(f"operation must be 'sync', 'write' or 'space', not {operation!r}")

    def stats(self) -> dict[str, object]:
        """Return counters and marks of the log. Positions are ``segment << 32 | offset``."""
        return {
            "appends": self.append_count, "syncs": self.sync_count, "records": self.record_count,
            "bytes": self.byte_count, "marks": self.mark_count, "segments_begun": self.segment_count,
            "waits_for_segment": self.pool.wait_count, "appended": self.appended, "synced": self.synced,
            "oldest_segment": self.oldest, "segment": self.segment, "segment_bytes": self.segment_size,
            "ready_files": self.pool.ready_count, "has_reserve": bool(self.pool.has_reserve),
            "space_low": bool(self.pool.space_low), "poisoned": bool(self.poisoned), "scanned": bool(self.scanned),
            "promised": self.state.promised, "incarnation": self.state.incarnation,
            "chosen_upto": self.state.chosen_upto, "trimmed": self.state.trimmed,
            "quarantine": self.state.quarantine,
        }

    @property
    def is_damaged(self) -> bool:
        """True if the last scan met damage that may hide promises and went on (``through_damage``)."""
        return self.reader.damaged_headers != 0

    @property
    def is_foreign(self) -> bool:
        """True if the last scan met a segment of another node, cluster, storage or format."""
        return self.reader.is_foreign

    @property
    def damage(self) -> str | None:
        """What the last scan found damaged and where, in words; a slot with a damaged value is not meant."""
        return self.reader.damage

    @property
    def damaged_values(self) -> int:
        """Records of the last scan whose header is good and whose value is not."""
        return self.reader.damaged_values

    @property
    def is_poisoned(self) -> bool:
        """True after a write or a sync failed: the log takes nothing more."""
        return self.poisoned

    @property
    def is_space_low(self) -> bool:
        """True while no room can be had for the segment after this one."""
        return self.pool.space_low

    def close(self, *, mark: bool = True) -> None:
        """Write a last mark, sync, and close every file. Safe to call twice.

        Args:
            mark: false leaves the end of the log as a crash would.

        Raises:
            StorageError: the last sync failed; what was synced before is safe.
        """
        cdef Record last
        cdef int status = 0
        if self.directory < 0:
            return
        if mark and getpid() == self.pid and self.fd >= 0 and self.scanned and not self.poisoned and (
            self.unmarked or self.noted or self.synced != self.appended
        ):
            memset(&last, 0, sizeof(Record))
            last.kind = RECORD_MARK
            last.slot = self.state.trimmed
            last.ballot = self.state.promised
            last.mark = self.state.chosen_upto
            with nogil:
                status = failpoint(AT_WAL_CLOSE) or self.sync()
                if status == 0:
                    status = self._append_own(&last)
        with nogil:
            self.shut()
        if status and status != ENOSPC:
            self._check(status, "closing the log")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
