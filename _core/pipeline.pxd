# The way of a value through one node, and the state of the node around its roles. Base of the engine; only one
# thread ever touches it.

from libc.stdint cimport uint32_t, uint64_t

from paxos._core.acceptor cimport AcceptorCore
from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader
from paxos._core.effects cimport Ready, Record
from paxos._core.heartbeat cimport HeartbeatCore
from paxos._core.learner cimport LearnerCore
from paxos._core.outbox cimport Outbox
from paxos._core.peers cimport Peers
from paxos._core.proposer cimport ProposerCore
from paxos._core.slots cimport SlotTable

# Why the engine stopped for good. Nothing may be sent any more.
cdef enum Fault:
    FAULT_NONE = 0
    FAULT_DISK = 1             # the driver said so: append or sync failed
    FAULT_MEMORY = 2
    FAULT_CONTRADICTION = 3    # a leader proposed another value in a slot known to be chosen (I3)
    FAULT_RECOVERY = 4         # the log does not hold what it says is chosen

cdef struct Counters:
    uint64_t frames            # taken
    uint64_t wrong_cluster     # dropped: of another cluster or group
    uint64_t wrong_receiver    # dropped: meant for another node, or from oneself
    uint64_t unknown_sender    # dropped: no member
    uint64_t wrong_storage     # dropped: a Hello from a storage that is not bound to that id
    uint64_t unverified        # dropped: from an incarnation that has not said Hello
    uint64_t refused_hellos    # members that showed less than before, or a second process under one identity
    uint64_t refusals          # times that a member refused this node
    uint64_t no_votes          # dropped: a vote or proposal of a member in quarantine
    uint64_t broken            # dropped: lengths or checksums do not fit
    uint64_t unknown_kind      # dropped
    uint64_t stale_intents     # dropped
    uint64_t elections         # times this node began to lead
    uint64_t step_downs        # times it stopped
    uint64_t forwarded         # batches sent on to a leader, resends included
    uint64_t refused_forwards  # forwarded batches that were not taken: duplicates, gaps, no room
    uint64_t read_rounds       # rounds opened to confirm reads, here or by asking a leader
    uint64_t reads_confirmed   # ... of which were confirmed
    uint64_t refused_reads     # members' reads that were not taken: this node has nobody to ask

cdef class PipelineCore:
    cdef Ready ready
    cdef Peers peers
    cdef SlotTable slots
    cdef AcceptorCore acceptor
    cdef ProposerCore proposer
    cdef LearnerCore learner
    cdef HeartbeatCore heartbeat
    cdef Outbox outbox
    cdef Counters count
    cdef uint64_t now_us
    cdef int fault                  # Fault
    cdef uint64_t fault_slot
    cdef uint64_t retained_bytes_max
    cdef uint64_t progress_us       # the leader: when a slot was last chosen, or none was waiting
    cdef uint64_t progress_upto
    cdef uint64_t transfer_until_us # handing over until then: nothing new is proposed
    cdef uint64_t lag_seen_upto     # chosen_upto at the last round, and rounds without advance
    cdef int lag_rounds
    cdef uint32_t told_flags        # of the last summary that went to the control thread
    cdef uint64_t told_leader
    cdef uint64_t hello_round       # round in which an unverified peer was last greeted out of turn
    cdef bint is_recovering
    cdef uint64_t log_position      # the log is durable at least up to here
    cdef uint64_t recovered_mark    # highest chosen_upto that a record of the log told
    cdef bint is_disk_low           # the driver says so: little space is left. No votes in heartbeats, nothing new
    cdef bint burst_ended           # the last of a burst of chosen values came: the control thread may ask on

    cdef bint has_room(self) noexcept nogil
    # True while this node leads and a slot is unchosen: the reactor may spin instead of sleeping.
    cdef bint may_spin(self) noexcept nogil
    # One own sealed batch; takes the reference. Call only while has_room().
    cdef void offer(self, Buffer *value, uint32_t value_crc) noexcept nogil
    # The records of `ready` are durable (see effects.pxd); call it after every pass, also without records.
    cdef void advance(self, uint64_t now_us) noexcept nogil
    # The disk failed: never vote, answer or lead again.
    cdef void poison(self) noexcept nogil
    # Restart: every valid record in log order (value borrowed), then finish_recovery.
    cdef void recover(self, const Record *record) noexcept nogil
    cdef void finish_recovery(self) noexcept nogil

    cdef void _propose_outbox(self) noexcept nogil
    cdef void _forward_outbox(self, bint again) noexcept nogil
    cdef void _pump(self) noexcept nogil
    cdef void _learn(self) noexcept nogil
    cdef void _configure(self, uint64_t slot, Buffer *value, uint32_t value_crc) noexcept nogil
    cdef void _let_go(self) noexcept nogil
    cdef void _to_control(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _tell_of_promise(self, uint64_t promised) noexcept nogil
    cdef void _tell_control(self, bint wanted) noexcept nogil
    cdef void _forget_unchosen(self) noexcept nogil
    cdef void _check_leadership(self) noexcept nogil
    cdef void _stop_leading(self) noexcept nogil
    cdef void _stop(self, int fault, uint64_t slot) noexcept nogil
    cdef void _send(self, FrameHeader *header, const void *payload, size_t size) noexcept nogil
