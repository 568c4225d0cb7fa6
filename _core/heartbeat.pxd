# Who can reach whom: heartbeat rounds, and what this node concludes at the close of each (Ng, Haridi,
# Carbone, Omni-Paxos, EuroSys 2023). Happiness is heard from the leader itself, never second-hand, so it
# cannot circulate.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from paxos._core.codec cimport FrameHeader, PingPayload, PongPayload
from paxos._core.effects cimport Ready
from paxos._core.peers cimport Peers
from paxos._core.quorum cimport MEMBERS_MAX

cdef enum:
    ROUNDS_REMEMBERED = 64    # whose late answers still tell how slow the members are

cdef struct Answer:
    bint counted              # a Pong of this round and of our incarnation
    uint32_t flags
    uint64_t promised
    uint64_t leader
    uint64_t chosen_upto
    uint32_t priority

cdef class HeartbeatCore:
    cdef readonly Ready ready
    cdef readonly Peers peers
    cdef Answer answers[MEMBERS_MAX]        # of the open round
    # Members that an open round waits longer than one period for: who answered at all of late. A dead peer
    # thus costs one long round, and a slow one is not forgotten, because late answers count here.
    cdef bint expected[MEMBERS_MAX]
    cdef readonly uint64_t round
    cdef readonly bint round_is_open
    cdef uint64_t opened_us
    cdef uint64_t opened_at[ROUNDS_REMEMBERED]
    # How long answers took of late, a hanging disk or a slow link at either end included; decays.
    cdef readonly uint64_t slow_us
    cdef readonly uint64_t period_us
    cdef readonly uint64_t election_timeout_us
    cdef readonly uint32_t priority
    # Conclusions of the last round.
    cdef readonly bint votes
    cdef readonly bint is_connected
    cdef readonly bint is_happy
    cdef readonly bint is_candidate
    cdef readonly uint64_t leader           # ballot of the leader that is followed; 0 if none
    cdef readonly bint leader_is_new        # ... and it was first heard of after the last round had closed
    cdef readonly uint64_t last_connected_us
    cdef readonly uint64_t best_chosen
    cdef readonly uint16_t best_peer
    cdef readonly int heard
    cdef readonly uint64_t followed_above   # highest ballot that somebody heard leads at, or is happy with
    cdef readonly uint64_t promised_above   # highest promise heard that is above the own ballot; BALLOT_NONE: none
    cdef readonly uint16_t relay            # a happy peer, when the leader itself is not heard; 0 if none
    # What the composition tells before it asks.
    cdef uint64_t own_ballot                # that is led; 0 if none
    cdef uint64_t own_promised              # durable
    cdef bint own_votes                     # not in quarantine, disk moving, space left

    cdef bint _expected_answered(self) noexcept nogil
    cdef bint _enough_answered(self) noexcept nogil
    cdef void _measure(self, uint64_t round, uint64_t now_us) noexcept nogil
    # How long a round may stay open for answers that its conclusions need.
    cdef uint64_t patience_us(self) noexcept nogil
    # How long a leader may go on without a quorum, or without anything being chosen.
    cdef uint64_t grace_us(self) noexcept nogil
    # True if a round must be opened or closed now.
    cdef bint is_due(self, uint64_t now_us) noexcept nogil
    cdef uint64_t next_due_us(self) noexcept nogil
    cdef void open_round(self, uint64_t now_us) noexcept nogil
    # Count an answer; True if all members have answered now.
    cdef bint on_pong(self, const FrameHeader *header, const PongPayload *pong, uint64_t now_us) noexcept nogil
    cdef void close_round(self, uint64_t now_us) noexcept nogil
    # A frame at `ballot` came from its leader: follow without waiting for the next round.
    cdef void follow(self, uint64_t ballot) noexcept nogil
    cdef uint32_t flags(self) noexcept nogil
