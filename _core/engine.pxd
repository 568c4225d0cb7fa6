# The reactor's side of one node, without IO: frames, ticks, batches and intents in, one Ready out. The
# reactor and the simulator drive this same object. Only one thread ever touches it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.acceptor cimport AcceptorCore
from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader
from paxos._core.effects cimport Ready, Record
from paxos._core.heartbeat cimport HeartbeatCore
from paxos._core.learner cimport LearnerCore
from paxos._core.peers cimport Peers
from paxos._core.proposer cimport ProposerCore

# What the control thread asks of the reactor. Checked against the present state before it is acted on.
cdef enum IntentKind:
    INTENT_CAMPAIGN = 1    # promise `ballot` ourselves; once that is durable, send Prepare(ballot, slot)
    INTENT_LEAD = 2        # lead at `ballot`: propose `values` from `slot` on, a no-op, then new batches
    INTENT_SEND = 3        # send `frame` to its receiver
    INTENT_TRANSFER = 4    # hand leadership to node `slot`
    INTENT_RESIGN = 5      # stop leading
    INTENT_CONFIGURE = 6   # `values[0]` is the configuration chosen in `slot`: it governs from slot + 1

cdef struct Intent:
    uint32_t kind
    uint64_t ballot
    uint64_t slot
    size_t count
    uint8_t *value_kinds   # count of them, owned
    Buffer **values        # count of them, one reference each, owned
    FrameHeader header     # INTENT_SEND; its payload is values[0] if count
    Intent *next           # for mailboxes

cdef Intent *intent_new(uint32_t kind, uint64_t ballot, uint64_t slot, size_t count) noexcept nogil
cdef void intent_free(Intent *intent) noexcept nogil
# Build an Intent from one of the dataclasses of paxos.messages (Campaign, Lead, Send, ...). Needs the GIL.
cdef Intent *intent_from_python(object intent) except NULL

cdef class EngineCore:
    cdef Ready ready
    cdef Peers peers
    cdef AcceptorCore acceptor
    cdef ProposerCore proposer
    cdef LearnerCore learner
    cdef HeartbeatCore heartbeat
    cdef uint64_t now_us
    cdef int fault                  # 0, or a Fault: the driver must stop, nothing may be sent any more

    # `header` passed header_valid(); everything else is checked here. `payload` is borrowed (retained if kept).
    cdef void on_frame(self, const FrameHeader *header, Buffer *payload, uint64_t now_us) noexcept nogil
    cdef void on_tick(self, uint64_t now_us) noexcept nogil
    # When on_tick wants to be called next, on the same clock.
    cdef uint64_t next_deadline_us(self) noexcept nogil
    # One own sealed batch; takes the reference. Call only while has_room().
    cdef void offer(self, Buffer *value, uint32_t value_crc) noexcept nogil
    cdef bint has_room(self) noexcept nogil
    # True while this node leads and a slot is unchosen: the reactor may spin instead of sleeping.
    cdef bint may_spin(self) noexcept nogil
    cdef void on_intent(self, Intent *intent) noexcept nogil
    # Call before the records are appended / when they are durable (see effects.pxd).
    cdef void advance(self, uint64_t now_us) noexcept nogil
    # The disk failed: never vote, answer or lead again.
    cdef void poison(self) noexcept nogil
    # Restart: every valid record in log order (value borrowed), then finish_recovery.
    cdef void recover(self, const Record *record) noexcept nogil
    cdef void finish_recovery(self) noexcept nogil
