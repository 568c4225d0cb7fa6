"""Readers of any thread on one side, the reactor on the other: :class:`ReadDesk`."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from paxos._core.effects cimport Ready
from paxos._core.failpoint cimport AT_READ_CONFIRMED, AT_READ_TAKEN, failpoint
from paxos._core.wakeup cimport (
    SIGNAL_CHECK_US, WAKE_ALL, clock_us, gate_enter, gate_leave, gate_sleep, gate_wake, load32, load64, store32,
    store64, timeout_to_us,
)


@cython.final
cdef class ReadDesk:
    """Numbers for readers, and the marks that they may read at.

    Example:
        >>> from paxos._core.wakeup import Waker
        >>> desk = ReadDesk(Waker())
        >>> desk.ask(), desk.ask()
        (1, 2)
        >>> desk.wait(1, 0) is None      # no reactor has confirmed it
        True
    """

    def __cinit__(self, Waker waker not None):
        self.waker = waker

    cdef bint has_news(self) noexcept nogil:
        return load64(&self.asked) != self.taken

    cdef uint64_t take(self) noexcept nogil:
        failpoint(AT_READ_TAKEN)
        self.taken = load64(&self.asked)
        return self.taken

    cdef void confirm(self, Ready ready) noexcept nogil:
        if not ready.reads_upto:
            return
        failpoint(AT_READ_CONFIRMED)
        store64(&self.mark, ready.read_mark)
        store64(&self.confirmed, ready.reads_upto)
        ready.reads_upto = 0
        gate_wake(&self.gate, WAKE_ALL)

    cdef void close(self) noexcept nogil:
        store32(&self.closed, 1)
        gate_wake(&self.gate, WAKE_ALL)

    def ask(self) -> int:
        """Return the number of one more read, which arrives now. Any thread."""
        cdef uint64_t number = self.asked + 1
        store64(&self.asked, number)
        self.waker.wake()
        return number

    def wait(self, number: int, timeout_s: float | None = None) -> int | None:
        """Wait without the GIL until read ``number`` is confirmed: return the slot that must be applied before it is
        served. None after ``timeout_s``, or when the reactor has ended before."""
        cdef uint64_t wanted = number
        cdef uint64_t now = clock_us()
        cdef uint64_t deadline = now + <uint64_t>timeout_to_us(timeout_s)
        cdef uint32_t seen
        while load64(&self.confirmed) < wanted:
            if load32(&self.closed) or now >= deadline:
                return None
            with nogil:
                seen = gate_enter(&self.gate)
                if load64(&self.confirmed) < wanted and not load32(&self.closed):
                    gate_sleep(&self.gate, seen, <int64_t>min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
                gate_leave(&self.gate)
            PyErr_CheckSignals()
            now = clock_us()
        return load64(&self.mark)

    @property
    def is_closed(self) -> bool:
        """True once nothing will be confirmed any more."""
        return load32(&self.closed) != 0
