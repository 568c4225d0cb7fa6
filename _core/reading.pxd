# Linearizable reads: which marks they may be served at. A reader is a number; the reads of one node are numbered
# 1, 2, 3 ... in this incarnation, so one number stands for all readers up to it.
#
# Reads are confirmed in rounds, one at a time. Whatever arrived before a round was opened belongs to it, whatever
# arrives later waits for the next one (R3). At the leader a round is a Ping to all members that names it, and the
# answers to exactly this round; elsewhere it is one READ_INDEX to the leader (or to the peer that hears it), which
# answers as soon as a round of its own, opened later, is confirmed. A lost frame is sent again under the same
# number, so slow links never make a round start anew.
#
# What is confirmed is a mark: the chosen_upto that the leader had when its round was opened. A read may be served
# by any state that has applied every slot up to it.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader, PongPayload
from paxos._core.greeting cimport GreetingCore
from paxos._core.quorum cimport MEMBERS_MAX

cdef enum:
    READ_HOPS_MAX = 1         # a follower asks on for one that does not hear the leader, and that is all

# Reads that a member has asked this node to confirm.
cdef struct Asker:
    uint64_t waiting          # highest number that waits for a round to be opened; 0: none
    uint64_t in_round         # highest number that the open round stands for; 0: none
    uint64_t incarnation      # of the member, when it asked

cdef class ReadingCore(GreetingCore):
    cdef Asker askers[MEMBERS_MAX]          # by place
    cdef bint read_answered[MEMBERS_MAX]    # by place: counts for the open round
    cdef uint64_t own_waiting               # own reads, as in Asker
    cdef uint64_t own_in_round
    cdef uint64_t read_round                # number of the newest round; no two of one incarnation are the same
    cdef bint read_round_is_open
    cdef bint reads_wanted                  # something waits, or a round is open
    cdef uint64_t read_ballot               # the open round is of the leader of this ballot: this node
    cdef uint64_t read_mark                 # ... chosen_upto when it was opened
    cdef uint64_t read_asked_of             # the open round asked whoever leads this ballot
    cdef uint64_t read_sent_us              # when its frames were last sent
    cdef uint32_t read_tries                # how often they were sent again
    cdef uint64_t read_config_slot          # configuration whose places are used above

    # Own reads numbered up to `upto` have arrived.
    cdef void on_read(self, uint64_t upto, uint64_t now_us) noexcept nogil
    # A leader may open and confirm rounds now: see the protocol's read rule.
    cdef bint may_confirm_reads(self) noexcept nogil

    cdef void _on_read_index(self, const FrameHeader *header) noexcept nogil
    cdef void _on_read_mark(self, const FrameHeader *header, Buffer *payload) noexcept nogil
    cdef void _on_read_answer(self, const FrameHeader *header, const PongPayload *pong) noexcept nogil
    cdef void _retry_reads(self) noexcept nogil

    cdef void _pump_reads(self) noexcept nogil
    cdef bint _reads_wait(self) noexcept nogil
    cdef void _open_read_round(self) noexcept nogil
    cdef void _send_read_round(self) noexcept nogil
    cdef void _ping_for_reads(self) noexcept nogil
    cdef void _count_read_answers(self) noexcept nogil
    cdef void _confirm_reads(self, uint64_t ballot, uint64_t mark) noexcept nogil
    cdef void _reopen_reads(self) noexcept nogil
    cdef bint _is_read_round_valid(self) noexcept nogil
    cdef uint16_t _read_target(self) noexcept nogil
    cdef void _check_read_places(self) noexcept nogil
