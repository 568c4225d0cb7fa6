"""One node without IO: acceptor, proposer, learner and heartbeat, and what passes between them.

:class:`EngineCore` is the gate in: every frame, tick, batch and intent enters here, is checked once, and goes
to the role that it concerns. All effects leave in ``ready``; ``_core/effects.pxd`` states the order in which
a driver carries them out. Nothing here takes the GIL, reads a clock or touches a socket.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._core.ballot cimport BALLOT_CHOSEN, BALLOT_MAX, BALLOT_NONE, ballot_node
from paxos._core.buffer cimport buffer_release, buffer_retain
from paxos._core.codec cimport (
    ACCEPT, ACCEPT_REF, ACCEPTED, CHOSEN, CHOSEN_GONE, CONFIGURATION, DECIDE, FETCH, FETCH_CHOSEN, FETCHED,
    FORWARD, HELLO, NACK, NACK_GAP, NACK_STREAM, NOOP, OPEN, PING, PING_BYTES_MIN, PING_LEADS, PONG, PONG_BYTES_MIN,
    PREPARE, PROMISE, READ_INDEX, READ_MARK, REFUSE, TRANSFER, PingPayload, PongPayload,
)
from paxos._core.crc32c cimport crc32c
from paxos._core.pipeline cimport FAULT_CONTRADICTION
from paxos._core.slots cimport Slot

cdef enum:
    RESEND_PERIODS = 4           # a forwarded batch that was not seen chosen for so long is sent again
    FORWARD_HOPS_MAX = 1


cdef class EngineCore(ReadingCore):
    """The compiled composition of one node's roles: the gate through which everything enters.

    See :class:`PipelineCore` for the arguments.
    """

    # ---- frames ---------------------------------------------------------------------------------------

    cdef void on_frame(self, const FrameHeader *header, Buffer *payload, uint64_t now_us) noexcept nogil:
        if self.fault:
            return
        self.now_us = now_us
        if not self._admit_frame(header, payload):
            return
        self.count.frames += 1
        self._dispatch(header, payload)
        if self.acceptor.contradiction:
            self._stop(FAULT_CONTRADICTION, self.acceptor.contradiction)

    cdef bint _admit_frame(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        """Check everything about a frame that does not depend on its kind. False: drop it (counted)."""
        cdef size_t size = payload.size if payload != NULL else 0
        cdef int place
        if header.cluster != self.peers.cluster or header.group != self.peers.group:
            self.count.wrong_cluster += 1
            return False
        if header.receiver != self.peers.node_id or header.sender == self.peers.node_id:
            self.count.wrong_receiver += 1
            return False
        if size != header.payload_bytes or header.payload_crc != (crc32c(0, payload.data, size) if size else 0):
            self.count.broken += 1
            return False
        place = self.peers.place(header.sender)
        if place < 0:
            self.count.unknown_sender += 1
            return False
        if header.ballot > BALLOT_MAX and header.kind != FETCH and header.kind != FETCHED:
            self.count.broken += 1
            return False
        if header.kind == HELLO or header.kind == REFUSE:
            return True         # greeting.pyx knows whom to believe
        if not self.peers.items[place].is_verified or header.incarnation != self.peers.items[place].incarnation:
            self._on_unverified(place, header)
            return False
        if self.peers.items[place].is_quarantined and header.kind not in (
            PING, PONG, FETCH_CHOSEN, CHOSEN, CHOSEN_GONE
        ):
            self.count.no_votes += 1
            return False
        if self.is_settling and header.kind in (PREPARE, OPEN, ACCEPT, ACCEPT_REF):
            return False        # whoever sent it asks again
        return True

    cdef void _dispatch(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef int kind = header.kind
        if kind == ACCEPT or kind == ACCEPT_REF or kind == OPEN or kind == DECIDE:
            self._on_accept(header, payload)
        elif kind == ACCEPTED:
            self._on_accepted(header.sender, header.ballot, header.slot)
            self.proposer.feed()
        elif kind == PING:
            self._on_ping(header, payload)
        elif kind == PONG:
            self._on_pong(header, payload)
        elif kind == FORWARD:
            self._on_forward(header, payload)
        elif kind == READ_INDEX:
            self._on_read_index(header)
        elif kind == READ_MARK:
            self._on_read_mark(header, payload)
        elif kind == PREPARE:
            self._on_prepare(header)
        elif kind == NACK:
            self._on_nack(header)
        elif kind == FETCH:
            self.acceptor.on_fetch(header)
        elif kind == CHOSEN:
            self._on_chosen(header, payload)
        elif kind == HELLO:
            self._on_hello(header, payload)
        elif kind == REFUSE:
            self._on_refuse(header, payload)
        elif kind == TRANSFER:
            # Only the leader that is followed may hand over, and only what it leads.
            if ballot_node(header.ballot) == header.sender and header.ballot == self.heartbeat.leader:
                self.acceptor.on_transfer(header)
                if header.slot == self.peers.node_id:
                    self._to_control(header, NULL)
        elif kind == PROMISE or kind == FETCHED or kind == FETCH_CHOSEN or kind == CHOSEN_GONE:
            self._to_control(header, payload)
        else:
            self.count.unknown_kind += 1

    cdef void _on_accepted(self, uint16_t sender, uint64_t ballot, uint64_t upto) noexcept nogil:
        """A member's durable mark at `ballot`, from its Accepted or its Pong; no vote for what was never proposed."""
        if ballot == self.proposer.ballot:
            if upto >= self.proposer.next_slot:
                return
            self.proposer.on_accepted(self.peers.place(sender), upto)
        if self.learner.on_accepted(sender, ballot, upto):
            self.learner.advance_known()

    cdef void _on_ping(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef PingPayload ping
        cdef PongPayload pong
        cdef FrameHeader reply
        if payload == NULL or payload.size < PING_BYTES_MIN:
            self.count.broken += 1
            return
        memset(&ping, 0, sizeof(ping))
        memcpy(&ping, payload.data, min(payload.size, sizeof(ping)))
        if ping.ballot != BALLOT_NONE and ballot_node(ping.ballot) != header.sender:
            self.count.broken += 1      # only its leader speaks for a ballot
            return
        if ping.flags & PING_LEADS and ping.ballot >= self.acceptor.promised:
            self.heartbeat.follow(ping.ballot)
        if ping.ballot != BALLOT_NONE and ping.ballot == self.acceptor.stream_ballot:
            self.learner.on_announced(ping.ballot, self.acceptor.stream_start, ping.chosen_upto)
            self.learner.advance_known()
        memset(&pong, 0, sizeof(pong))
        pong.round = ping.round
        pong.asker = header.incarnation
        pong.promised = self.acceptor.promised_durable
        pong.leader = self.proposer.ballot if self.proposer.ballot != BALLOT_NONE else self.heartbeat.leader
        pong.stream_ballot = self.acceptor.durable_ballot
        pong.stream_start = self.acceptor.durable_start
        pong.stream_upto = self.acceptor.durable_upto
        pong.chosen_upto = self.learner.chosen_upto
        self.heartbeat.own_votes = self.may_vote()
        pong.flags = self.heartbeat.flags()
        pong.priority = self.heartbeat.priority
        pong.read_round = ping.read_round
        pong.position = self.log_position
        if self.acceptor.is_quarantined:     # nothing that counts: it is only told who is there, and how far
            pong.leader = pong.stream_ballot = pong.stream_start = pong.stream_upto = 0
            pong.flags = 0
        reply = self.peers.header(PONG, header.sender)
        self._send(&reply, &pong, sizeof(pong))

    cdef void _on_pong(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef PongPayload pong
        cdef bint all_answered
        cdef int place = self.peers.place(header.sender)
        if payload == NULL or payload.size < PONG_BYTES_MIN:
            self.count.broken += 1
            return
        memset(&pong, 0, sizeof(pong))
        memcpy(&pong, payload.data, min(payload.size, sizeof(pong)))
        if self.peers.items[place].is_quarantined:
            if pong.read_round:
                return           # no answer of it counts
            pong.leader = pong.stream_ballot = pong.flags = 0
        else:
            self._saw(place, pong.promised, pong.position)
        if pong.read_round:
            # An answer about reads is no answer of a heartbeat round: elections and resends go on as without it.
            self._on_read_answer(header, &pong)
            return
        all_answered = self.heartbeat.on_pong(header, &pong, self.now_us)
        if self.proposer.ballot != BALLOT_NONE and pong.asker == self.peers.incarnation:
            if pong.stream_ballot == self.proposer.ballot:
                self._on_accepted(header.sender, pong.stream_ballot, pong.stream_upto)
            if not self.peers.items[place].is_quarantined:
                self.proposer.on_pong(place, &pong)
        if all_answered:
            self._close_round()

    cdef void _on_prepare(self, const FrameHeader *header) noexcept nogil:
        cdef bint happy_with_other = (
            self.heartbeat.is_happy and ballot_node(self.heartbeat.leader) != header.sender
        )
        if ballot_node(header.ballot) != header.sender:
            self.count.broken += 1      # every ballot belongs to one proposer
            return
        self.acceptor.mark = self.learner.known_upto
        if self.acceptor.on_prepare(header, happy_with_other):
            self._check_leadership()
            self._to_control(header, NULL)     # somebody else tries: the own attempt waits

    cdef void _on_accept(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        """Open, Accept, AcceptRef, Decide: what only the leader of `ballot` may say."""
        if ballot_node(header.ballot) != header.sender:
            self.count.broken += 1
            return
        if header.kind == OPEN:
            if self.acceptor.on_open(header):
                self._check_leadership()
        if header.ballot == self.acceptor.stream_ballot and header.ballot >= self.acceptor.promised:
            self.heartbeat.follow(header.ballot)
            if header.kind == OPEN and self.outbox.count():
                self._forward_outbox(False)
            if header.kind != ACCEPT_REF:
                # What was announced before this value governs the mark that its record carries.
                self.learner.on_announced(header.ballot, self.acceptor.stream_start, header.mark)
                self.learner.advance_known()
        self.acceptor.mark = self.learner.known_upto
        if header.kind == ACCEPT:
            if header.detail < NOOP or header.detail > CONFIGURATION:
                self.count.broken += 1      # no value that this release knows: it must not get into the log
                return
            self.acceptor.on_accept(header, payload)
            self.learner.advance_known()
        elif header.kind == ACCEPT_REF:
            self.acceptor.on_accept_ref(header)
            self.learner.advance_known()

    cdef void _on_nack(self, const FrameHeader *header) noexcept nogil:
        if header.detail == NACK_GAP or header.detail == NACK_STREAM:
            self.proposer.on_nack(self.peers.place(header.sender), header)
        else:
            self._to_control(header, NULL)

    cdef void _on_chosen(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        """A value that a peer knows to be chosen: write it as such over whatever the slot held [h4]."""
        if header.slot <= self.learner.known_upto or header.detail < NOOP or header.detail > CONFIGURATION:
            return
        if header.slot > self.learner.known_upto + self.proposer.window_slots * 16:
            return      # far ahead of what was asked for
        if self.proposer.ballot != BALLOT_NONE:
            if self._contradicts_own(header):
                self._stop_leading()
            elif header.slot >= self.proposer.next_slot:
                return      # about to be proposed again with this value: phase 1 found it
        self.acceptor.mark = self.learner.known_upto
        self.acceptor.record_chosen(header.slot, <uint8_t>header.detail, payload, header.payload_crc)
        self.learner.advance_known()
        self.burst_ended = self.burst_ended or header.slot == header.mark

    cdef bint _contradicts_own(self, const FrameHeader *header) noexcept nogil:
        """Tell whether this node leads and `header`'s slot is chosen with a value that is not the one proposed here.

        Then a higher ballot leads that nobody has told this node of. It must not announce such a slot at its own
        ballot: followers hold its own proposal there and would take that for chosen [h25].
        """
        cdef const Slot *entry = self.slots.get(header.slot)
        if header.slot >= self.proposer.next_slot:
            return header.slot >= self.proposer.own_noop_slot
        if entry == NULL or entry.ballot == BALLOT_CHOSEN:
            return False
        return (
            entry.kind != header.detail
            or entry.value_crc != header.payload_crc
            or entry.length != header.payload_bytes
        )

    cdef void _on_forward(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef FrameHeader onward
        cdef uint16_t leader
        if payload == NULL:
            self.count.broken += 1
            return
        if self.proposer.ballot != BALLOT_NONE and not self.transfer_until_us:
            if self.proposer.enqueue_batch(buffer_retain(payload), header.payload_crc) == 1:
                self._pump()
            else:
                buffer_release(payload)
                self.count.refused_forwards += 1
            return
        leader = <uint16_t>ballot_node(self.heartbeat.leader)
        if header.detail < FORWARD_HOPS_MAX and leader and leader != self.peers.node_id and leader != header.sender:
            onward = self.peers.header(FORWARD, leader)
            onward.detail = header.detail + 1
            self._send(&onward, payload.data, payload.size)
        else:
            self.count.refused_forwards += 1

    # ---- time -----------------------------------------------------------------------------------------

    cdef void on_tick(self, uint64_t now_us) noexcept nogil:
        if self.fault:
            return
        self.now_us = now_us
        self._settle()
        if not self.heartbeat.is_due(now_us):
            return
        self._note_peers()
        if self.heartbeat.round_is_open:
            self._close_round()
        if self.heartbeat.is_due(now_us):
            self._open_round()
        self._retry_reads()
        if self.outbox.count():
            if self.proposer.ballot != BALLOT_NONE:
                self._propose_outbox()
                self._pump()
            else:
                self._forward_outbox(now_us - self.outbox.sent_us > self._resend_after_us())

    cdef uint64_t _resend_after_us(self) noexcept nogil:
        """How long to wait for the front of the outbox to be chosen before all of it is sent again.

        Where batches overtake each other or find no room, the leader takes the first few of what was sent and no
        more. It has shown then that it is there, so the rest follows as soon as nothing of it can be on its way.
        """
        cdef uint64_t longest = RESEND_PERIODS * self.heartbeat.period_us
        if self.outbox.has_moved:
            return min(longest, self.heartbeat.period_us + self.heartbeat.slow_us)
        return longest

    cdef uint64_t next_deadline_us(self) noexcept nogil:
        return self.heartbeat.next_due_us()

    cdef void _open_round(self) noexcept nogil:
        cdef PingPayload ping
        cdef FrameHeader header
        cdef int place
        self.heartbeat.open_round(self.now_us)
        for place in range(self.peers.count):
            if place == self.peers.own:
                continue
            if not self.peers.items[place].is_verified:
                self._greet(place)
                continue
            memset(&ping, 0, sizeof(ping))
            ping.round = self.heartbeat.round
            ping.ballot = self.proposer.ballot
            ping.chosen_upto = self.learner.chosen_upto
            if self.proposer.ballot != BALLOT_NONE:
                ping.flags = PING_LEADS
                ping.sent_upto = self.proposer.streams[place].next - 1 if self.proposer.streams[place].is_open else 0
            header = self.peers.header(PING, self.peers.items[place].node_id)
            self._send(&header, &ping, sizeof(ping))
        if self.peers.count == 1:
            self._close_round()

    cdef void _close_round(self) noexcept nogil:
        self.heartbeat.own_ballot = self.proposer.ballot
        self.heartbeat.own_promised = self.acceptor.promised_durable
        self.heartbeat.own_votes = self.may_vote()
        self.heartbeat.close_round(self.now_us)
        if self.proposer.ballot != BALLOT_NONE:
            if self.proposer.next_slot - 1 == self.learner.chosen_upto or self.progress_upto != self.learner.chosen_upto:
                self.progress_us = self.now_us
                self.progress_upto = self.learner.chosen_upto
            if (
                self.heartbeat.followed_above > self.proposer.ballot   # a later leader works: follow it [h20]
                or self.now_us > self.heartbeat.last_connected_us + self.heartbeat.grace_us()
                or self.now_us > self.progress_us + self.heartbeat.grace_us()
            ):
                self._stop_leading()
            elif self.heartbeat.promised_above != BALLOT_NONE:
                self._tell_of_promise(self.heartbeat.promised_above)
        if self.transfer_until_us and self.now_us > self.transfer_until_us:
            self.transfer_until_us = 0
        self._tell_control(False)
