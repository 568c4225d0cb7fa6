# Exactly once: the commands of one origin node in one incarnation are a session, and tickets number them
# 1, 2, 3 ... in the order of proposing. A batch is admitted iff its first ticket is the last admitted + 1;
# of one node only the newest incarnation that the log has seen may speak. The table is a function of the
# chosen prefix alone, so every replica decides alike.

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from paxos._core.codec cimport BatchHead

cdef enum:
    PACKED_SESSION_BYTES = 18      # origin, incarnation, last ticket: 2 + 8 + 8 bytes

cdef struct Session:
    uint16_t origin
    uint64_t incarnation
    uint64_t last_ticket

cdef class Sessions:
    cdef Session *items
    cdef int count
    cdef int capacity

    # 1 if the batch is the next of its session, which then moves on; 0 for duplicates, gaps and old lives;
    # -1 when memory is out (the caller must stop: guessing would make replicas differ).
    cdef int admit(self, const BatchHead *head) noexcept nogil
    # What admit would say, without moving.
    cdef bint would_admit(self, const BatchHead *head) noexcept nogil
    cdef bint copy_from(self, Sessions other) noexcept nogil
    # Replace the table by one that a snapshot brought: `count` packed entries. False when memory is out.
    cdef bint load(self, const uint8_t *packed, int count) noexcept nogil
    cdef Session *find(self, uint16_t origin) noexcept nogil
