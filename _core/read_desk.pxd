# Where readers of any thread and the reactor meet. A reader takes a number and waits; the reactor looks at the
# highest number given, has it confirmed and says so once for all readers up to it. Nobody holds a lock.

from libc.stdint cimport uint32_t, uint64_t

from paxos._core.effects cimport Ready
from paxos._core.wakeup cimport Gate, Waker

cdef class ReadDesk:
    cdef Gate gate                   # readers that wait
    cdef Waker waker                 # the reactor
    cdef uint64_t asked              # highest number given; written under the GIL, read anywhere
    cdef uint64_t taken              # ... when the reactor last looked; its own
    cdef uint64_t mark               # of `confirmed`; written first, and neither ever falls
    cdef uint64_t confirmed          # reads up to it are confirmed
    cdef uint32_t closed

    # The reactor's side: has anybody asked since the last look; look; tell what `ready` confirms; it is over.
    cdef bint has_news(self) noexcept nogil
    cdef uint64_t take(self) noexcept nogil
    cdef void confirm(self, Ready ready) noexcept nogil
    cdef void close(self) noexcept nogil
