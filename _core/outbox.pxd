# The own batches that are not yet known to be chosen, in ticket order. They are proposed here while this node
# leads, forwarded to the leader otherwise, and sent again until they are seen in the log.

from libc.stdint cimport uint32_t, uint64_t

from paxos._core.buffer cimport Buffer

cdef struct Pending:
    Buffer *value          # one reference
    uint32_t crc
    uint64_t last_ticket

cdef class Outbox:
    cdef Pending *items            # ring
    cdef uint64_t head
    cdef uint64_t tail
    cdef uint64_t capacity         # power of two
    cdef readonly uint64_t held_bytes
    cdef uint64_t sent             # items below it went to `sent_to` already
    cdef uint64_t sent_to          # ballot whose leader they went to
    cdef uint64_t sent_us          # when the oldest of them was last sent, or the front last moved
    cdef bint has_moved            # some of what was last sent is chosen: the leader is there, and takes more

    # Takes the reference; False (and released) when memory is out.
    cdef bint push(self, Buffer *value, uint32_t crc) noexcept nogil
    cdef Pending *at(self, uint64_t place) noexcept nogil
    # Forget the batches whose tickets are all <= `ticket`.
    cdef void drop_upto(self, uint64_t ticket, uint64_t now_us) noexcept nogil
    cdef uint64_t count(self) noexcept nogil
