"""A native closed-loop proposer: :class:`NativeLoad`."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from paxos._core.native_thread cimport pthread_join, start_native_thread
from paxos._core.wakeup cimport (
    SIGNAL_CHECK_US, WAKE_ALL, clock_us, gate_enter, gate_leave, gate_sleep, gate_wake, load32, load64, store32,
    store64, timeout_to_us,
)

from paxos.errors import ConfigError


cdef void *load_main(void *load) noexcept nogil:
    (<NativeLoad>load).run()
    return NULL


@cython.final
cdef class NativeLoad:
    """Propose ``count`` commands one after the other from a native thread, without ever taking the GIL.

    Args:
        reactor: of the node at which to propose; running.
        count: commands.
        command_bytes: size of each, at least 8: the first eight bytes count up from 1.
        pause_us: after each command.
        patience_s: the load gives up when one command takes longer.

    The commands pass through the log and the state machine like any other; nobody hears of their results.
    """

    def __cinit__(
        self, Reactor reactor not None, count: int, command_bytes: int = 256, pause_us: int = 0,
        patience_s: float = 60.0,
    ):
        if count < 1 or not 8 <= command_bytes <= reactor.batcher.command_bytes_max or pause_us < 0:
            raise ConfigError(f"count {count}, command_bytes {command_bytes} or pause_us {pause_us} is out of range")
        self.reactor = reactor
        self.wanted = count
        self.command_bytes = command_bytes
        self.pause_us = pause_us
        self.patience_us = <uint64_t>timeout_to_us(patience_s)
        self.command = <uint8_t *>calloc(1, self.command_bytes)
        self.waits_us = <uint64_t *>calloc(self.wanted, sizeof(uint64_t))
        self.finish_times_us = <uint64_t *>calloc(self.wanted, sizeof(uint64_t))
        if self.command == NULL or self.waits_us == NULL or self.finish_times_us == NULL:
            raise MemoryError(f"no memory for {count} latencies")

    def __dealloc__(self):
        free(self.command)
        free(self.waits_us)
        free(self.finish_times_us)

    cdef void run(self) noexcept nogil:
        cdef uint64_t number, ticket, started_us, now_us
        for number in range(self.wanted):
            if load32(&self.stop_requested):
                break
            started_us = clock_us()
            store64(<uint64_t *>self.command, number + 1)
            ticket = self._append(started_us + self.patience_us)
            if not ticket or not self.reactor.chosen.wait_native(ticket, self.patience_us):
                store32(&self.gave_up, 1)
                break
            now_us = clock_us()
            self.waits_us[number] = now_us - started_us
            self.finish_times_us[number] = now_us
            store64(&self.done, number + 1)
            self._pause(self.pause_us)
        store32(&self.is_running, 0)
        gate_wake(&self.gate, WAKE_ALL)

    cdef uint64_t _append(self, uint64_t deadline_us) noexcept nogil:
        """The ticket, after waiting for room; 0 when closed or out of patience."""
        cdef uint64_t ticket
        while True:
            ticket = self.reactor.batcher.append_native(self.command, self.command_bytes)
            if ticket or load32(&self.reactor.batcher.closed) or load32(&self.stop_requested):
                return ticket
            if clock_us() >= deadline_us:
                return 0
            self._pause(1000)

    cdef void _pause(self, uint64_t pause_us) noexcept nogil:
        cdef uint32_t seen
        if pause_us == 0:
            return
        seen = gate_enter(&self.gate)
        if not load32(&self.stop_requested):
            gate_sleep(&self.gate, seen, <int64_t>pause_us)
        gate_leave(&self.gate)

    def start(self) -> None:
        """Start the thread. Once.

        Raises:
            ConfigError: it was started before. OSError: no thread.
        """
        cdef int error
        if load32(&self.is_running) or load64(&self.done) or load32(&self.gave_up) or load32(&self.stop_requested):
            raise ConfigError("a load is started once; build a new one")
        Py_INCREF(self)
        store32(&self.is_running, 1)
        error = start_native_thread(&self.thread, load_main, <void *>self, "paxos-load")
        if error:
            store32(&self.is_running, 0)
            store32(&self.joined, 1)
            Py_DECREF(self)
            raise OSError(error, "cannot start the load's thread")

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait without the GIL for the end; False after ``timeout_s``."""
        cdef uint64_t now = clock_us()
        cdef uint64_t deadline = now + <uint64_t>timeout_to_us(timeout_s)
        cdef uint32_t seen
        while load32(&self.is_running):
            if now >= deadline:
                return False
            with nogil:
                seen = gate_enter(&self.gate)
                if load32(&self.is_running):
                    gate_sleep(&self.gate, seen, <int64_t>min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
                gate_leave(&self.gate)
            PyErr_CheckSignals()
            now = clock_us()
        if self.thread and not load32(&self.joined):
            store32(&self.joined, 1)
            with nogil:
                pthread_join(self.thread, NULL)
            Py_DECREF(self)
        return True

    def stop(self, timeout_s: float | None = 5.0) -> bool:
        """Propose nothing more and join; a command that is under way is waited for."""
        store32(&self.stop_requested, 1)
        gate_wake(&self.gate, WAKE_ALL)
        return self.join(timeout_s)

    @property
    def running(self) -> bool:
        return load32(&self.is_running) != 0

    @property
    def failed(self) -> bool:
        """True if it gave up: closed, stopped, or out of patience."""
        return load32(&self.gave_up) != 0

    @property
    def completed(self) -> int:
        """Commands that are chosen so far."""
        return load64(&self.done)

    @property
    def latencies_us(self) -> list[int]:
        """Microseconds from enqueueing to chosen, of each completed command."""
        return [self.waits_us[i] for i in range(load64(&self.done))]

    @property
    def finished_us(self) -> list[int]:
        """When each completed command was chosen, in microseconds of CLOCK_BOOTTIME."""
        return [self.finish_times_us[i] for i in range(load64(&self.done))]
