# The acceptor's compiled half: what must happen without the GIL. It keeps two things apart that must never
# be confused: `promised`, one ballot for the whole log, and the ballot at which each slot's value was
# accepted. Everything it sends goes out after the sync of what it reports (I6).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader
from paxos._core.effects cimport Ready, Record
from paxos._core.peers cimport Peers
from paxos._core.slots cimport Slot, SlotTable

cdef class AcceptorCore:
    cdef readonly Ready ready
    cdef readonly SlotTable slots
    cdef readonly Peers peers
    cdef readonly uint64_t promised          # highest ballot promised or accepted
    cdef readonly uint64_t promised_durable  # ... as of the last sync
    cdef readonly uint64_t trimmed           # slots up to it are covered by a durable snapshot
    # The leader's stream: one ballot's values, taken strictly in slot order from `stream_start` on.
    cdef readonly uint64_t stream_ballot
    cdef readonly uint64_t stream_start
    cdef readonly uint64_t stream_next       # next slot expected
    cdef readonly uint64_t durable_ballot    # the stream as of the last sync
    cdef readonly uint64_t durable_start
    cdef readonly uint64_t durable_upto
    cdef readonly bint is_quarantined        # never vote again in this identity [h5]
    cdef readonly int quarantine_reason      # effects.QuarantineReason
    cdef readonly uint64_t unchosen_bytes_max
    cdef readonly uint32_t page_entries
    cdef uint32_t reports                    # promises reported so far, in whatever number of pages
    cdef bint ack_due                        # an Accepted is owed after the next sync
    cdef uint64_t gap_answered               # `stream_next` for which a gap was reported already, 0: none
    cdef uint64_t transfer_ballot            # leader's ballot that permits ...
    cdef uint16_t transfer_heir              # ... this node to prepare in spite of happiness
    # The chosen prefix, kept here by whoever composes the roles: reports start above it.
    cdef readonly uint64_t chosen_upto
    cdef uint64_t mark                       # `mark` of new records: chosen and held, perhaps not yet durable
    cdef readonly uint64_t contradiction     # slot of a chosen value that a leader contradicts (I3); 0: none
    cdef uint64_t waits_for_room             # a slot that was refused for lack of room and not asked for since; 0: none
    cdef uint64_t refused                    # frames that were not taken for lack of room

    # Answer Prepare: fence, promise, report. True if `promised` rose.
    cdef bint on_prepare(self, const FrameHeader *header, bint is_happy) noexcept nogil
    cdef bint on_open(self, const FrameHeader *header) noexcept nogil
    cdef void on_accept(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void on_accept_ref(self, const FrameHeader *header) noexcept nogil
    cdef void on_fetch(self, const FrameHeader *header) noexcept nogil
    cdef void on_transfer(self, const FrameHeader *header) noexcept nogil
    # The own proposer's side: promise an own ballot, open the own stream, accept an own proposal (takes `value`).
    cdef void raise_promise(self, uint64_t ballot) noexcept nogil
    cdef void report(self, uint64_t ballot, uint64_t first_slot, uint16_t receiver) noexcept nogil
    cdef void open_own(self, uint64_t ballot, uint64_t start) noexcept nogil
    cdef Slot *accept_own(self, uint64_t slot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil
    # Write a value that was learned as chosen over whatever the slot held. False: no room.
    cdef bint record_chosen(self, uint64_t slot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil
    # Slots up to `upto`, known here to be chosen, are covered by a durable snapshot: let them go and say so.
    cdef void trim(self, uint64_t upto) noexcept nogil
    # Everything in ready.records is durable: marks move, the owed Accepted goes out.
    cdef void advance(self) noexcept nogil
    cdef void recover(self, const Record *record) noexcept nogil
    cdef void nack(self, uint64_t ballot, uint16_t receiver, uint16_t reason, uint64_t expected) noexcept nogil

    cdef void _append(self, uint64_t slot, uint64_t ballot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil
    cdef bint _accept_next(self, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil
    cdef void _send_page(self, const FrameHeader *reply, uint64_t first, uint32_t count, uint32_t page, uint32_t pages) noexcept nogil
