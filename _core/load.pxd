# A closed-loop proposer without Python: it appends a command, waits until its batch is chosen, notes how long
# that took, and goes on. It is what shows that commits do not need the GIL, and what a benchmark uses when the
# cost of entering from Python is not the question.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.native_thread cimport pthread_t
from paxos._core.reactor cimport Reactor
from paxos._core.wakeup cimport Gate


cdef class NativeLoad:
    cdef Reactor reactor
    cdef pthread_t thread
    cdef Gate gate
    cdef uint32_t is_running            # 1 from start() until the thread has left
    cdef uint32_t joined
    cdef uint32_t stop_requested
    cdef uint64_t wanted
    cdef uint64_t pause_us           # after each command
    cdef uint64_t patience_us        # for one command; beyond it the load ends
    cdef size_t command_bytes
    cdef uint8_t *command            # the first 8 bytes count up from 1
    cdef uint64_t done               # written by the thread
    cdef uint64_t *waits_us          # `wanted` of them; `completed` are filled
    cdef uint64_t *finish_times_us   # when each was done, on the clock of the reactor
    cdef uint32_t gave_up

    cdef void run(self) noexcept nogil
    cdef uint64_t _append(self, uint64_t deadline_us) noexcept nogil
    cdef void _pause(self, uint64_t pause_us) noexcept nogil
