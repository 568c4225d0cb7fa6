"""Linearizable reads, without a write to the log (protocol, the read rule).

Why a confirmed mark is recent enough: a value that anybody was told of before the round was opened was chosen at
the leader's ballot b, at one below, or at one above. At b: only this leader announces it, so its ``chosen_upto``
covers it. Below: phase 1 found it, and the leader's own no-op, which must be chosen first, stands behind it (R2).
Above: a quorum had promised more than b by then, durably, and one of those would have had to answer this round,
which was opened later, with a promise of at most b [h8].
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._core.ballot cimport BALLOT_NONE, ballot_node
from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport (
    PING, PING_LEADS, PONG_VOTES, READ_INDEX, READ_MARK, FrameHeader, PingPayload, PongPayload, ReadMarkPayload,
)
from paxos._core.greeting cimport GreetingCore


cdef class ReadingCore(GreetingCore):
    """The part of a node that confirms reads; see the head of ``_core/reading.pxd``."""

    # ---- reads arrive ---------------------------------------------------------------------------------

    cdef void on_read(self, uint64_t upto, uint64_t now_us) noexcept nogil:
        if self.fault:
            return
        self.now_us = now_us
        if upto > self.own_waiting:
            self.own_waiting = upto
        self.reads_wanted = True
        self._pump_reads()

    cdef void _on_read_index(self, const FrameHeader *header) noexcept nogil:
        cdef int place
        cdef Asker *asker
        cdef uint16_t target
        self._check_read_places()
        place = self.peers.place(header.sender)
        if header.slot == 0:
            self.count.broken += 1
            return
        if self.proposer.ballot == BALLOT_NONE:
            # Ask on only where the leader itself is heard, and never for one that asks on: no circles.
            target = <uint16_t>ballot_node(self.heartbeat.leader)
            if header.detail >= READ_HOPS_MAX or not self.heartbeat.is_happy or target == header.sender:
                self.count.refused_reads += 1
                return
        asker = &self.askers[place]
        if asker.incarnation != header.incarnation:
            asker.incarnation = header.incarnation
            asker.waiting = 0
            asker.in_round = 0
        # Asked again because the answer is late: the open round will bring it.
        if not (self.read_round_is_open and header.slot <= asker.in_round) and header.slot > asker.waiting:
            asker.waiting = header.slot
        self.reads_wanted = True
        self._pump_reads()

    # ---- rounds ---------------------------------------------------------------------------------------

    cdef void advance(self, uint64_t now_us) noexcept nogil:
        GreetingCore.advance(self, now_us)
        if self.reads_wanted and not self.fault:
            self._pump_reads()

    cdef bint may_confirm_reads(self) noexcept nogil:
        return (
            self.proposer.ballot != BALLOT_NONE
            and self.proposer.own_noop_slot != 0
            and self.learner.chosen_upto >= self.proposer.own_noop_slot     # R2
            # From the choice of a configuration until it is installed, no quorum of the old one decides [h10].
            and self.learner.config_slot <= self.peers.config_slot
        )

    cdef bint _is_read_round_valid(self) noexcept nogil:
        if self.read_ballot == BALLOT_NONE:
            return self.proposer.ballot == BALLOT_NONE
        return self.proposer.ballot == self.read_ballot and self.may_confirm_reads()

    cdef void _pump_reads(self) noexcept nogil:
        """Open a round if none is open and something waits; give up one that can no longer be confirmed."""
        self._check_read_places()
        if self.read_round_is_open:
            if not self._is_read_round_valid():
                self._reopen_reads()
            elif self.read_ballot == BALLOT_NONE and self.heartbeat.leader != self.read_asked_of:
                self.read_tries = 0
                self._send_read_round()     # there is somebody new to ask
                return
            else:
                return
        if not self._reads_wait():
            self.reads_wanted = False
            return
        if self.proposer.ballot != BALLOT_NONE:
            if self.may_confirm_reads():
                self._open_read_round()
        elif self._read_target():
            self._open_read_round()

    cdef bint _reads_wait(self) noexcept nogil:
        cdef int place
        for place in range(self.peers.count):
            if self.askers[place].waiting:
                return True
        return self.own_waiting != 0

    cdef void _open_read_round(self) noexcept nogil:
        cdef int place
        self.read_round += 1
        self.read_round_is_open = True
        self.count.read_rounds += 1
        self.own_in_round = self.own_waiting
        self.own_waiting = 0
        for place in range(self.peers.count):
            self.askers[place].in_round = self.askers[place].waiting
            self.askers[place].waiting = 0
        memset(self.read_answered, 0, sizeof(self.read_answered))
        self.read_tries = 0
        self.read_ballot = self.proposer.ballot
        self.read_mark = self.learner.chosen_upto
        self._send_read_round()
        if self.read_ballot != BALLOT_NONE:
            self._count_read_answers()      # a node alone is its own quorum

    cdef void _send_read_round(self) noexcept nogil:
        cdef FrameHeader header
        cdef int place
        cdef uint16_t target
        self.read_sent_us = self.now_us
        if self.read_ballot != BALLOT_NONE:
            self._ping_for_reads()
            return
        target = self._read_target()
        self.read_asked_of = self.heartbeat.leader
        if target == 0:
            return
        header = self.peers.header(READ_INDEX, target)
        header.slot = self.read_round
        for place in range(self.peers.count):
            if target != <uint16_t>ballot_node(self.heartbeat.leader):
                self.askers[place].in_round = 0     # through a peer only the own reads go: it would refuse others
            elif self.askers[place].in_round:
                header.detail = READ_HOPS_MAX
        self._send(&header, NULL, 0)

    cdef void _ping_for_reads(self) noexcept nogil:
        cdef PingPayload ping
        cdef FrameHeader header
        cdef int place
        memset(&ping, 0, sizeof(ping))
        ping.ballot = self.read_ballot
        ping.chosen_upto = self.learner.chosen_upto
        ping.flags = PING_LEADS
        ping.read_round = self.read_round
        for place in range(self.peers.count):
            if place != self.peers.own and self.peers.items[place].is_verified and not self.read_answered[place]:
                header = self.peers.header(PING, self.peers.items[place].node_id)
                self._send(&header, &ping, sizeof(ping))

    cdef void _on_read_answer(self, const FrameHeader *header, const PongPayload *pong) noexcept nogil:
        """A Pong that names a read round: it counts for exactly this round of this incarnation [h9], if what its
        sender has durably promised is not above the ballot [h8]."""
        self._check_read_places()
        if not self.read_round_is_open or pong.asker != self.peers.incarnation or pong.read_round != self.read_round:
            return
        if self.read_ballot == BALLOT_NONE or not self._is_read_round_valid():
            return
        if pong.promised <= self.read_ballot and pong.flags & PONG_VOTES:
            self.read_answered[self.peers.place(header.sender)] = True
            self._count_read_answers()

    cdef void _count_read_answers(self) noexcept nogil:
        cdef int place, answers = 0
        for place in range(self.peers.count):
            if place == self.peers.own:
                answers += not self.acceptor.is_quarantined and self.acceptor.promised_durable <= self.read_ballot
            else:
                answers += self.read_answered[place]
        if answers >= self.peers.prepare_size:
            self._confirm_reads(self.read_ballot, self.read_mark)

    cdef void _on_read_mark(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef ReadMarkPayload answer
        if payload == NULL or payload.size < sizeof(ReadMarkPayload):
            self.count.broken += 1
            return
        memcpy(&answer, payload.data, sizeof(answer))
        self._check_read_places()
        if answer.asker != self.peers.incarnation or header.slot != self.read_round:
            return
        if self.read_round_is_open and self.read_ballot == BALLOT_NONE and self._is_read_round_valid():
            self._confirm_reads(header.ballot, header.mark)

    cdef void _confirm_reads(self, uint64_t ballot, uint64_t mark) noexcept nogil:
        """Everything that the open round stands for may be served at `mark`."""
        cdef FrameHeader header
        cdef ReadMarkPayload answer
        cdef int place
        self.read_round_is_open = False
        self.count.reads_confirmed += 1
        if self.own_in_round:
            self.ready.reads_upto = self.own_in_round
            self.ready.read_mark = mark
            self.own_in_round = 0
        for place in range(self.peers.count):
            if self.askers[place].in_round:
                header = self.peers.header(READ_MARK, self.peers.items[place].node_id)
                header.ballot = ballot
                header.slot = self.askers[place].in_round
                header.mark = mark
                answer.asker = self.askers[place].incarnation
                self.askers[place].in_round = 0
                self._send(&header, &answer, sizeof(answer))
        self._pump_reads()

    cdef void _reopen_reads(self) noexcept nogil:
        """The open round cannot be confirmed any more: what it stands for waits for the next one."""
        cdef int place
        self.read_round_is_open = False
        self.own_waiting = max(self.own_waiting, self.own_in_round)
        self.own_in_round = 0
        for place in range(self.peers.count):
            self.askers[place].waiting = max(self.askers[place].waiting, self.askers[place].in_round)
            self.askers[place].in_round = 0

    cdef void _retry_reads(self) noexcept nogil:
        """Send the frames of a round again that has been open for a period; the numbers stay."""
        if not self.reads_wanted:
            return
        self._pump_reads()
        if self.read_round_is_open and self.now_us >= self.read_sent_us + self.heartbeat.period_us:
            self.read_tries += 1
            self._send_read_round()

    # ---- whom to ask ----------------------------------------------------------------------------------

    cdef uint16_t _read_target(self) noexcept nogil:
        """The leader that this node follows, or a peer that hears it; 0: nobody. By turns if neither is certain:
        what the leader sends may arrive here while nothing arrives there."""
        cdef uint16_t leader = <uint16_t>ballot_node(self.heartbeat.leader)
        if leader == self.peers.node_id:
            leader = 0
        if self.heartbeat.relay and not self.heartbeat.is_happy and (leader == 0 or self.read_tries & 1):
            return self.heartbeat.relay
        return leader

    cdef void _check_read_places(self) noexcept nogil:
        """Another configuration has other places: members ask again, and an open round begins anew."""
        if self.read_config_slot == self.peers.config_slot:
            return
        self.read_config_slot = self.peers.config_slot
        memset(self.askers, 0, sizeof(self.askers))
        memset(self.read_answered, 0, sizeof(self.read_answered))
        if self.read_round_is_open:
            self._reopen_reads()
