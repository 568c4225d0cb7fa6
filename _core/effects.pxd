# What the roles want done, collected in one Ready. The order in which a driver carries it out is the safety
# argument, so it is stated here once; the reactor and the simulator both follow it:
#
#   1. send `send_now`                 MAY leave before anything below is durable
#   2. append `records`, then sync     ONE append and one sync for all of them
#   3. call `advance()` on the engine  "everything in `records` is durable now": own votes count, and the
#                                      acknowledgements that were waiting for the disk join `send_after_sync`
#   4. send `send_after_sync`          MUST NOT leave before the sync
#   5. send `send_now` again           what `advance()` itself produced
#   6. hand on `chosen` and `cold`     to the apply thread and the control thread; may come before 5
#
# Confirmed reads (`reads_upto`, `read_mark`) may be handed on at any time: they say nothing that is not durable.
#
# If the append or the sync fails, nothing of 3 to 6 happens, ever: the node is poisoned.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader

cpdef enum RecordKind:
    RECORD_PROMISE = 1      # ballot = promised
    RECORD_ACCEPT = 2       # slot, ballot, value: accepted at that ballot
    RECORD_CHOSEN = 3       # slot, value: learned as chosen; outranks every ACCEPT of the slot
    RECORD_MARK = 4         # ballot = promised; slot = trimmed; mark = chosen_upto
    RECORD_INCARNATION = 5  # slot = incarnation
    RECORD_TRIM = 6         # slot = trimmed
    RECORD_QUARANTINE = 7   # slot = QuarantineReason: this directory never votes again
    RECORD_PEER = 8         # what a member showed: slot = incarnation, ballot = promised, value = PeerNote

# Why a node does not trust its own memory. Higher numbers do not outrank lower ones; the first reason stays.
cpdef enum QuarantineReason:
    QUARANTINE_NONE = 0
    QUARANTINE_DAMAGED = 1     # the log cannot be read where promises or slots may lie
    QUARANTINE_LOST = 2        # a segment, or the whole log, is gone
    QUARANTINE_IDENTITY = 3    # the identity was damaged; the log said whose it is
    QUARANTINE_ROLLED_BACK = 4 # a member remembers more of this node than its directory does
    QUARANTINE_DUPLICATE = 5   # another process runs with this identity

# One entry of the write-ahead log. `mark` is the chosen_upto known when it was written: it becomes durable
# lazily, and never before the values that it covers, because these stand before it in the same log [h3].
cdef struct Record:
    uint8_t kind            # RecordKind
    uint8_t value_kind      # ValueKind for ACCEPT and CHOSEN
    uint32_t group
    uint64_t slot
    uint64_t ballot
    uint64_t mark
    uint32_t value_crc
    uint32_t length         # bytes of the value
    uint64_t position       # out: where the log put it (segment << 32 | offset); set by the append
    Buffer *value           # one reference, or NULL: empty or, in a record that was scanned and has a length, damaged

cdef struct Outgoing:
    FrameHeader header      # sealed
    Buffer *payload         # one reference, or NULL

cdef enum:
    CHOSEN_SNAPSHOT = 0     # kind of a Chosen: a snapshot stands for all slots up to `slot`; `index` is its last

# One slot that became known here to be chosen, in slot order, each exactly once.
cdef struct Chosen:
    uint64_t slot
    uint64_t index          # index of its first command; 0: nothing to apply (no-op, configuration, duplicate)
    uint64_t first_ticket   # of the batch; 0 if none
    uint64_t incarnation    # of the batch's origin
    uint64_t position       # where the value lies in the log
    uint32_t count          # commands
    uint32_t length
    uint32_t value_crc
    uint16_t origin
    uint8_t kind            # ValueKind, or CHOSEN_SNAPSHOT
    Buffer *value           # one reference, or NULL: read it from the log at `position`

cdef struct RecordList:
    Record *items
    size_t count
    size_t capacity

cdef struct OutgoingList:
    Outgoing *items
    size_t count
    size_t capacity

cdef struct ChosenList:
    Chosen *items
    size_t count
    size_t capacity


cdef class Ready:
    cdef RecordList records            # BEFORE send_after_sync
    cdef OutgoingList send_now         # may leave before the sync
    cdef OutgoingList send_after_sync  # AFTER the sync of records
    cdef OutgoingList cold             # frames for the control thread (its own node's, or copies of received ones)
    cdef ChosenList chosen             # newly chosen slots, in order
    cdef uint64_t reads_upto           # own reads up to this number are confirmed; 0: none since the last look
    cdef uint64_t read_mark            # ... and see every slot up to this one
    cdef bint out_of_memory            # an append failed: the driver must poison the node

    # Each takes over the references in the struct that it copies (also when it fails).
    cdef void add_record(self, const Record *record) noexcept nogil
    cdef void add_now(self, const Outgoing *outgoing) noexcept nogil
    cdef void add_after_sync(self, const Outgoing *outgoing) noexcept nogil
    cdef void add_cold(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void add_chosen(self, const Chosen *chosen) noexcept nogil
    # Drop the references and empty the list.
    cdef void clear_records(self) noexcept nogil
    cdef void clear_outgoing(self, OutgoingList *outgoing) noexcept nogil
    cdef void clear_chosen(self) noexcept nogil

    cdef bint _add_outgoing(self, OutgoingList *outgoing, const Outgoing *item) noexcept nogil
    cdef list _frames(self, OutgoingList *outgoing)
