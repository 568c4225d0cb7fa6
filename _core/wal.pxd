# The write-ahead log of one node: zero-filled segments, one pwritev and one fdatasync per drain.
# Append, request-sync and durable are separate steps. Only the reactor thread appends and syncs; `read` may
# be called from any thread for positions that were appended.
#
# The log watches the records that pass through it (promises, incarnations, trims, marks) and repeats what they
# say in every segment head and every mark, so rot in one record or the end of an old segment loses nothing [h7].
# Layout and checksums: wal_format.pxd. What a bad byte means: log_reader.pxd.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.effects cimport Record
from paxos._core.log_reader cimport LogReader, RecordSink
from paxos._core.segment cimport iovec
from paxos._core.segment_pool cimport SegmentPool
from paxos._core.value_reader cimport ValueReader
from paxos._core.wal_format cimport LogState, RecordHead, SegmentHead

cdef enum:
    STAGED_MAX = 340         # records in one pwritev: three parts each stay below IOV_MAX
    NEXT_BYTES = 72          # kept free at the end of every segment: the record that names the next one

cdef class Wal:
    # 0, or an errno; sets `position` of every record. ENOSPC: nothing was written, the log stays usable and may be
    # asked again. After any other failure the log is poisoned: every later append and sync fails with EIO, nothing is
    # retried (fsyncgate). EINVAL: the log has not been scanned yet.
    cdef int append(self, Record *records, size_t count) noexcept nogil
    # 0 or an errno: everything appended is durable. Free of charge if nothing was appended.
    cdef int sync(self) noexcept nogil
    # The next mark, at the latest the one that close() writes, says that slots up to `upto` are chosen. Their
    # values must have been appended before [h3].
    cdef void note_chosen(self, uint64_t upto) noexcept nogil
    # Call in every round of the reactor. Writes and syncs one mark if the log has been idle for `idle_mark_ms` since
    # its last un-marked sync; also tries again to get space when there was none. 0 or an errno; `next_mark_us` is
    # 0 or the time, on the clock of `now_us`, at which it wants to be called.
    cdef int maybe_mark(self, uint64_t now_us) noexcept nogil
    cdef uint64_t next_mark_us
    cdef bint poisoned
    # Files for the next segments. `pool.space_low`: none could be made, what is left is the room of this segment and
    # the reserve. A node says so by not voting and by refusing proposals before the log is full.
    cdef SegmentPool pool
    # Positions: behind the last record; everything below is durable.
    cdef uint64_t appended, synced
    # Replay the whole log, oldest record first, into `sink` (may be NULL). A record with a length and no value is
    # damaged: its slot is known, its value is not. 0, or an errno, or what the sink returned.
    # EUCLEAN: damage that may hide promises; `damage_text()` says what, nothing was changed. A log that exists must
    # be scanned before it is appended to: the scan cuts a torn tail, durably.
    cdef int scan(self, RecordSink sink, void *context) noexcept nogil
    # With `reader.keep_going` (a node in quarantine, see begin_behind) the scan goes on behind such damage, which is
    # told to the sink as RECORD_GAP.
    # The same in steps: begin, `reader.step` while `reader.more`, end with the last status, which it returns.
    cdef int scan_begin(self) noexcept nogil
    cdef int scan_end(self, int status) noexcept nogil
    # Copy the value of the record at `position` (`length` bytes) to `out` and check it. 0 or an errno (EBADMSG: damaged,
    # ENOENT: trimmed). Any thread.
    cdef int read(self, uint64_t position, uint32_t length, uint32_t value_crc, uint8_t *out) noexcept nogil
    # Segments below `segment` are covered by a durable trim record: say so durably, then keep their files for reuse.
    cdef int recycle(self, uint64_t segment) noexcept nogil
    # Join the preparing thread and close every file; nothing is written. Python's close() writes a last mark before.
    cdef void shut(self) noexcept nogil

    cdef bint scanned
    cdef bint may_begin_behind       # scanned through damage: only begin_behind() opens the log for appends
    cdef LogState state
    cdef LogReader reader
    cdef str path
    cdef int pid                     # of the process that opened it: a forked child writes nothing
    cdef int directory               # of the segments
    cdef int fd                      # the segment that is written to; -1: closed
    cdef uint64_t segment, segment_size, offset, generation
    cdef uint64_t oldest             # number of the oldest segment
    cdef uint32_t last_crc
    cdef bint noted                  # note_chosen() said more than the last mark does
    cdef bint unmarked, touched      # a sync is not yet told by any record; one happened since the last maybe_mark
    cdef uint64_t idle_mark_us, retry_us
    cdef uint64_t segment_bytes
    cdef uint64_t cluster
    cdef uint32_t node_id
    cdef uint8_t storage[16]
    cdef RecordHead *heads           # STAGED_MAX
    cdef iovec *parts                # 3 * STAGED_MAX
    cdef ValueReader values
    # Tests: fail the next call with this errno.
    cdef int fail_sync, fail_write

    cdef uint64_t append_count, sync_count, record_count, byte_count, mark_count, segment_count

    cdef int _poison(self, int status) noexcept nogil
    cdef object _check(self, int status, str what)
    cdef size_t _stage(self, Record *records, size_t count, size_t *part_count) noexcept nogil
    cdef int _append_own(self, Record *record) noexcept nogil
    cdef uint64_t _segment_for(self, const Record *records, size_t count) noexcept nogil
    cdef int _make_room(self, const Record *records, size_t count) noexcept nogil
    cdef uint64_t _usual(self) noexcept nogil
    cdef void _prepare_ahead(self) noexcept nogil
    cdef int _roll(self, uint64_t least) noexcept nogil
    cdef int _name_next(self, uint64_t segment) noexcept nogil
    cdef int _begin_behind(self, uint64_t segment) noexcept nogil
    cdef void _begin_segment(self, const SegmentHead *head, int fd, uint64_t offset, uint32_t crc) noexcept nogil
    cdef int _adopt_tail(self) noexcept nogil
