# Reads values back from the segments of a log, for any thread: one file is kept open for all readers, who share a lock
# that the reactor never takes to append.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.segment cimport pthread_mutex_t

cdef class ValueReader:
    cdef int directory               # of the segments; borrowed from the log; -1: closed
    cdef pthread_mutex_t lock
    cdef int fd
    cdef uint64_t segment

    # Copy the value of the record at `position` (`length` bytes) to `out` and check it. 0 or an errno (EBADMSG:
    # damaged, ENOENT: trimmed).
    cdef int read(self, uint64_t position, uint32_t length, uint32_t value_crc, uint8_t *out) noexcept nogil
    # Segments below this one are about to be used again: keep none of them open.
    cdef void forget_below(self, uint64_t segment) noexcept nogil
    cdef void shut(self) noexcept nogil
