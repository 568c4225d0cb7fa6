# The write-ahead log of one node: zero-filled segments, one pwritev and one fdatasync per drain.
# Append, request-sync and durable are separate steps. Only the reactor thread appends and syncs; `read` may
# be called from any thread for positions that were appended.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.effects cimport Record

# Called for every valid record in log order while scanning; the record's value is borrowed. Non-zero stops.
ctypedef int (*RecordSink)(void *context, const Record *record) noexcept nogil

cdef class Wal:
    # 0, or an errno; sets `position` of every record. After any failure the log is poisoned: every later
    # append and sync fails with EIO, nothing is retried (fsyncgate).
    cdef int append(self, Record *records, size_t count) noexcept nogil
    cdef int sync(self) noexcept nogil
    # Write and sync one mark if the log has been idle for `idle_mark_ms` since its last un-marked sync.
    # 0 or an errno; `next_mark_us` is 0 or the time at which it wants to be called.
    cdef int maybe_mark(self, uint64_t now_us) noexcept nogil
    cdef uint64_t next_mark_us
    cdef bint poisoned
    # Replay the whole log, oldest record first, into `sink`. 0, or an errno, or what the sink returned.
    cdef int scan(self, RecordSink sink, void *context) noexcept nogil
    # Copy the value of the record at `position` (`length` bytes) to `out` and check it. 0 or an errno (EBADMSG: damaged).
    cdef int read(self, uint64_t position, uint32_t length, uint32_t value_crc, uint8_t *out) noexcept nogil
