# Who a peer is, and who this node is to its peers: Hello, what is remembered of every member, and quarantine.
#
# A member is an id, a disk (storage UUID) and a memory that only grows: its incarnation, its promise and the end of
# its log never go back. Whoever shows less than it has shown, or runs twice, is refused and told so; whoever is told
# so never votes again in this identity [h5].

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader, HelloPayload
from paxos._core.intent cimport Intent
from paxos._core.leading cimport LeadingCore

# Value of a RECORD_PEER; its record's slot is the incarnation and its ballot the promise.
cdef packed struct PeerNote:
    uint64_t nonce
    uint64_t position
    uint16_t node_id
    uint16_t reserved
    uint32_t reserved2
    uint8_t storage[16]      # of the directory that showed it

cdef class GreetingCore(LeadingCore):
    cdef uint64_t started_promised, started_position     # as this life found them
    cdef uint64_t settling_until_us                      # 0: not yet known
    cdef bint is_settling                                # peers may yet say that they remember more: no votes until then

    # May this node vote, as far as its identity, its memory and its disk go?
    cdef bint may_vote(self) noexcept nogil
    # Never vote again in this identity: durable with the next sync, in force at once. The first reason stays.
    cdef void enter_quarantine(self, int reason) noexcept nogil
    cdef void _on_hello(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef int _judge(self, int place, uint64_t incarnation, const HelloPayload *hello) noexcept nogil
    cdef bint _has_forgotten(self, int place, uint64_t incarnation, const HelloPayload *hello) noexcept nogil
    cdef void _on_refuse(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _refuse(self, uint16_t receiver, uint64_t incarnation, uint64_t nonce, uint32_t reason) noexcept nogil
    cdef void _send_hello(self, uint16_t receiver, uint32_t flags, uint64_t answers) noexcept nogil
    cdef void _greet(self, int place) noexcept nogil
    cdef void _on_unverified(self, int place, const FrameHeader *header) noexcept nogil
    cdef void _saw(self, int place, uint64_t promised, uint64_t position) noexcept nogil
    cdef void _settle(self) noexcept nogil
    cdef void _note_peers(self) noexcept nogil
