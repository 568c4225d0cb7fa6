# The proposer's compiled half, phase 2: give each value the next slot, stream it to the members, send again
# what got lost, keep the window. Phase 1 is Python (paxos/proposer.py); it ends in `lead`.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader, PongPayload
from paxos._core.effects cimport Ready
from paxos._core.peers cimport Peers
from paxos._core.quorum cimport MEMBERS_MAX
from paxos._core.sessions cimport Sessions
from paxos._core.slots cimport Slot, SlotTable

# The stream to one member at the present ballot.
cdef struct Stream:
    bint is_open
    bint open_unanswered   # nothing was heard of the stream since the last Open
    uint64_t start
    uint64_t next          # next slot to send
    uint64_t acked         # largest durable upto it told at this ballot
    uint64_t acked_bytes   # running_bytes at max(acked, start - 1)
    uint64_t sent_bytes    # running_bytes at next - 1
    uint64_t mark_sent     # highest chosen_upto that was announced to it
    uint64_t acked_before  # `acked` at the last Pong
    int silent_rounds      # Pongs without progress while something is unanswered

# A value that waits for a slot.
cdef struct Waiting:
    uint8_t kind
    uint32_t crc
    Buffer *value

cdef class ProposerCore:
    cdef readonly Ready ready
    cdef readonly SlotTable slots
    cdef readonly Peers peers
    cdef readonly Sessions sessions        # batches proposed so far at this ballot, on top of the chosen ones
    cdef readonly uint64_t ballot          # that is led; 0: not leading
    cdef readonly uint64_t last_led        # highest ballot ever led: never led again [h15]
    cdef readonly uint64_t next_slot
    cdef readonly uint64_t own_noop_slot   # the no-op that ends the recovery; 0 before it is proposed
    cdef readonly uint64_t barrier_slot    # an unchosen configuration: nothing is proposed above it (I13)
    cdef readonly uint64_t chosen_upto     # kept here by whoever composes the roles
    cdef readonly uint64_t window_slots
    cdef readonly uint64_t window_bytes
    cdef bint streams_to_self              # without an own acceptor beside it: used by hand
    cdef uint64_t running_bytes            # bytes of all values proposed at this ballot
    cdef uint64_t chosen_running_bytes     # ... of those that are chosen
    cdef Stream streams[MEMBERS_MAX]
    cdef Waiting *backlog                  # ring: recovered values, the no-op, forwarded and own batches
    cdef uint64_t backlog_head
    cdef uint64_t backlog_tail
    cdef uint64_t backlog_capacity         # power of two
    cdef readonly uint64_t backlog_bytes

    # Start leading at `ballot` from `first_slot` on, `recovered` values first and then a no-op: the caller
    # fills the backlog with them and pumps.
    cdef void lead(self, uint64_t ballot, uint64_t first_slot, uint64_t recovered, Sessions admitted) noexcept nogil
    cdef void stop(self) noexcept nogil
    # Queue a value; takes the reference. False (and released) when memory is out.
    cdef bint enqueue(self, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil
    # 1: it is the next of its session and queued (takes the reference); 0: duplicate or gap; -1: no room or memory.
    cdef int enqueue_batch(self, Buffer *value, uint32_t crc) noexcept nogil
    cdef bint has_room(self) noexcept nogil
    # The next value that may be proposed now, moved out of the backlog; False if there is none.
    cdef bint take(self, Waiting *waiting) noexcept nogil
    # next_slot became known as chosen before its recovered value was proposed: drop that value and move on.
    cdef void skip(self) noexcept nogil
    # `entry` now holds next_slot, accepted by the own acceptor: account for it and move on.
    cdef void proposed(self, Slot *entry) noexcept nogil
    # Send whatever each member's stream may be sent.
    cdef void feed(self) noexcept nogil
    cdef void on_chosen(self, uint64_t chosen_upto) noexcept nogil
    cdef void on_accepted(self, int place, uint64_t upto) noexcept nogil
    cdef void on_pong(self, int place, const PongPayload *pong) noexcept nogil
    cdef void on_nack(self, int place, const FrameHeader *header) noexcept nogil
    # Tell the members how far the log is chosen, those whom no Accept has told.
    cdef void announce(self) noexcept nogil

    cdef void _open(self, int place) noexcept nogil
    cdef void _feed_one(self, int place) noexcept nogil
    cdef void _rewind(self, Stream *stream, uint64_t slot) noexcept nogil
