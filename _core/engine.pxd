# The reactor's side of one node, without IO: frames, ticks, batches and intents in, one Ready out. The
# reactor and the simulator drive this same object. Only one thread ever touches it.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader
from paxos._core.reading cimport ReadingCore

cdef class EngineCore(ReadingCore):
    # `header` passed header_valid(); everything else is checked here. `payload` is borrowed (retained if kept).
    cdef void on_frame(self, const FrameHeader *header, Buffer *payload, uint64_t now_us) noexcept nogil
    cdef void on_tick(self, uint64_t now_us) noexcept nogil
    # When on_tick wants to be called next, on the same clock.
    cdef uint64_t _resend_after_us(self) noexcept nogil
    cdef uint64_t next_deadline_us(self) noexcept nogil

    cdef bint _admit_frame(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _dispatch(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _on_accepted(self, uint16_t sender, uint64_t ballot, uint64_t upto) noexcept nogil
    cdef void _on_ping(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _on_pong(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _on_prepare(self, const FrameHeader *header) noexcept nogil
    cdef void _on_accept(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _on_nack(self, const FrameHeader *header) noexcept nogil
    cdef void _on_chosen(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef bint _contradicts_own(self, const FrameHeader *header) noexcept nogil
    cdef void _on_forward(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _open_round(self) noexcept nogil
    cdef void _close_round(self) noexcept nogil
