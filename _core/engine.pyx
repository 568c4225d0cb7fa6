"""One node without IO: acceptor, proposer, learner and heartbeat, and what passes between them.

:class:`EngineCore` is the gate in: every frame, tick, batch and intent enters here, is checked once, and goes
to the role that it concerns. All effects leave in ``ready``; ``_core/effects.pxd`` states the order in which
a driver carries them out. Nothing here takes the GIL, reads a clock or touches a socket.
"""

from libc.string cimport memcmp, memcpy, memset

from paxos._core.ballot cimport BALLOT_CHOSEN, BALLOT_MAX, BALLOT_NONE, ballot_node
from paxos._core.buffer cimport buffer_copy, buffer_release, buffer_retain
from paxos._core.codec cimport (
    ACCEPT, ACCEPT_REF, ACCEPTED, BATCH, CHOSEN, CHOSEN_GONE, CONFIGURATION, DECIDE, FETCH, FETCH_CHOSEN, FETCHED,
    FORWARD, HELLO, NACK, NACK_GAP, NACK_PROMISED, NACK_STREAM, NOOP, OPEN, PING, PING_LEADS, PONG, PREPARE,
    PROMISE, PROTOCOL_VERSION, ROUND_ALL_HEARD, ROUND_CANDIDATE, ROUND_CLOSED, ROUND_CONNECTED, ROUND_HAPPY,
    ROUND_LAGGING, ROUND_LEADS, ROUND_VOTES, STOPPED_LEADING, TRANSFER, BatchHead, HelloPayload, PingPayload,
    PongPayload, RoundSummary, batch_valid, header_seal,
)
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport Chosen, Outgoing, OutgoingList, RECORD_ACCEPT, RECORD_CHOSEN
from paxos._core.intent cimport (
    INTENT_CAMPAIGN, INTENT_CONFIGURE, INTENT_LEAD, INTENT_RESIGN, INTENT_SEND, INTENT_TRANSFER, intent_free,
)
from paxos._core.proposer cimport Waiting
from paxos._core.slots cimport Slot

cdef enum:
    OUTBOX_BATCHES_MAX = 64      # own batches under way to a leader elsewhere
    RESEND_PERIODS = 4           # a forwarded batch that was not seen chosen for so long is sent again
    FORWARD_HOPS_MAX = 1
    FORWARD_SHARE = 4            # part of the leader's window that one other node may fill
    HELLO_ANSWER_WANTED = 1


cdef class EngineCore:
    """The compiled composition of one node's roles; see the head of ``_core/engine.pxd``.

    Args:
        acceptor, proposer, learner: roles that share one ``Peers``, ``SlotTable`` and ``Ready``.
        heartbeat: the rounds, sharing the same ``Peers``.
        retained_bytes_max: bytes of chosen values kept to serve members that missed them.
    """

    def __init__(
        self,
        AcceptorCore acceptor not None,
        ProposerCore proposer not None,
        LearnerCore learner not None,
        HeartbeatCore heartbeat not None,
        *,
        retained_bytes_max: int = 32 << 20,
    ) -> None:
        for role in (proposer, learner):
            if role.slots is not acceptor.slots or role.peers is not acceptor.peers or role.ready is not acceptor.ready:
                raise ValueError("the roles of one node share one SlotTable, one Peers and one Ready")
        if heartbeat.peers is not acceptor.peers:
            raise ValueError("the heartbeat shares the roles' Peers")
        self.ready = acceptor.ready
        self.peers = acceptor.peers
        self.slots = acceptor.slots
        self.acceptor = acceptor
        self.proposer = proposer
        self.learner = learner
        self.heartbeat = heartbeat
        self.outbox = Outbox()
        self.retained_bytes_max = retained_bytes_max
        self.is_recovering = True

    # ---- frames ------------------------------------------------------------------------------------------

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
        if header.kind == HELLO:
            return True
        if not self.peers.items[place].is_verified or header.incarnation != self.peers.items[place].incarnation:
            self.count.unverified += 1
            # An unknown later life of a member: ask it who it is, once a round.
            if header.incarnation >= self.peers.items[place].incarnation and self.hello_round != self.heartbeat.round:
                self.hello_round = self.heartbeat.round
                self._send_hello(header.sender, HELLO_ANSWER_WANTED)
            return False
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

    cdef void _on_hello(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef HelloPayload hello
        cdef int place = self.peers.place(header.sender)
        if payload == NULL or payload.size < sizeof(HelloPayload):
            self.count.broken += 1
            return
        memcpy(&hello, payload.data, sizeof(hello))
        if hello.version_min > PROTOCOL_VERSION or hello.version_max < PROTOCOL_VERSION:
            self.count.broken += 1
            return
        if self.peers.items[place].is_bound:
            if memcmp(hello.storage, self.peers.items[place].storage, 16) != 0:
                self.count.wrong_storage += 1      # a wiped, copied or foreign disk under a member's id
                return
        else:
            memcpy(self.peers.items[place].storage, hello.storage, 16)
        if header.incarnation < self.peers.items[place].incarnation:
            self.count.unverified += 1
            return
        self.peers.items[place].incarnation = header.incarnation
        self.peers.items[place].is_verified = True
        if hello.flags & HELLO_ANSWER_WANTED:
            self._send_hello(header.sender, 0)

    cdef void _on_ping(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef PingPayload ping
        cdef PongPayload pong
        cdef FrameHeader reply
        if payload == NULL or payload.size < sizeof(PingPayload):
            self.count.broken += 1
            return
        memcpy(&ping, payload.data, sizeof(ping))
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
        self.heartbeat.own_votes = not self.acceptor.is_quarantined
        pong.flags = self.heartbeat.flags()
        pong.priority = self.heartbeat.priority
        reply = self.peers.header(PONG, header.sender)
        self._send(&reply, &pong, sizeof(pong))

    cdef void _on_pong(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef PongPayload pong
        cdef bint all_answered
        if payload == NULL or payload.size < sizeof(PongPayload):
            self.count.broken += 1
            return
        memcpy(&pong, payload.data, sizeof(pong))
        all_answered = self.heartbeat.on_pong(header, &pong)
        if self.proposer.ballot != BALLOT_NONE and pong.asker == self.peers.incarnation:
            if pong.stream_ballot == self.proposer.ballot:
                self._on_accepted(header.sender, pong.stream_ballot, pong.stream_upto)
            self.proposer.on_pong(self.peers.place(header.sender), &pong)
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

    cdef void _to_control(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        self.ready.add_cold(header, buffer_retain(payload))

    cdef void _send(self, FrameHeader *header, const void *payload, size_t size) noexcept nogil:
        cdef Outgoing outgoing
        outgoing.payload = NULL
        if size:
            outgoing.payload = buffer_copy(payload, size)
            if outgoing.payload == NULL:
                self.ready.out_of_memory = True
                return
        header_seal(header, outgoing.payload, crc32c(0, <const uint8_t *>payload, size) if size else 0)
        outgoing.header = header[0]
        self.ready.add_now(&outgoing)

    cdef void _send_hello(self, uint16_t receiver, uint32_t flags) noexcept nogil:
        cdef HelloPayload hello
        cdef FrameHeader header = self.peers.header(HELLO, receiver)
        memset(&hello, 0, sizeof(hello))
        hello.version_min = PROTOCOL_VERSION
        hello.version_max = PROTOCOL_VERSION
        hello.flags = flags
        memcpy(hello.storage, self.peers.storage, 16)
        self._send(&header, &hello, sizeof(hello))

    # ---- time --------------------------------------------------------------------------------------------

    cdef void on_tick(self, uint64_t now_us) noexcept nogil:
        if self.fault:
            return
        self.now_us = now_us
        if not self.heartbeat.is_due(now_us):
            return
        if self.heartbeat.round_is_open:
            self._close_round()
        if self.heartbeat.is_due(now_us):
            self._open_round()
        if self.outbox.count():
            if self.proposer.ballot != BALLOT_NONE:
                self._propose_outbox()
                self._pump()
            else:
                self._forward_outbox(now_us - self.outbox.sent_us > RESEND_PERIODS * self.heartbeat.period_us)

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
                self._send_hello(self.peers.items[place].node_id, HELLO_ANSWER_WANTED)
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
        self.heartbeat.own_votes = not self.acceptor.is_quarantined and not self.is_disk_low
        self.heartbeat.close_round(self.now_us)
        if self.proposer.ballot != BALLOT_NONE:
            if self.proposer.next_slot - 1 == self.learner.chosen_upto or self.progress_upto != self.learner.chosen_upto:
                self.progress_us = self.now_us
                self.progress_upto = self.learner.chosen_upto
            if (
                self.heartbeat.followed_above > self.proposer.ballot   # a later leader works: follow it [h20]
                or self.now_us > self.heartbeat.last_connected_us + self.heartbeat.election_timeout_us
                or self.now_us > self.progress_us + self.heartbeat.election_timeout_us
            ):
                self._stop_leading()
            elif self.heartbeat.promised_above != BALLOT_NONE:
                self._tell_of_promise(self.heartbeat.promised_above)
        if self.transfer_until_us and self.now_us > self.transfer_until_us:
            self.transfer_until_us = 0
        self._tell_control(False)

    cdef void _tell_of_promise(self, uint64_t promised) noexcept nogil:
        """Tell control that a member promised more than this leader's ballot, as that member's nack would: while
        nothing is proposed no nack comes, and the member would follow nobody for ever [h20]."""
        cdef FrameHeader header = self.peers.header(NACK, self.peers.node_id)
        header.ballot = self.proposer.ballot
        header.detail = NACK_PROMISED
        header.mark = promised
        header_seal(&header, NULL, 0)
        self.ready.add_cold(&header, NULL)

    cdef void _tell_control(self, bint wanted) noexcept nogil:
        """Send the control thread a summary if it is wanted or there is something to decide."""
        cdef RoundSummary summary
        cdef FrameHeader header
        cdef Buffer *payload
        cdef uint32_t flags = 0
        cdef bint lags = self.heartbeat.best_chosen > self.learner.chosen_upto or self.learner.has_gap()
        if not wanted:
            self.lag_rounds = self.lag_rounds + 1 if lags and self.learner.chosen_upto == self.lag_seen_upto else 0
            self.lag_seen_upto = self.learner.chosen_upto
        if self.proposer.ballot != BALLOT_NONE:
            flags |= ROUND_LEADS
        if self.heartbeat.is_connected:
            flags |= ROUND_CONNECTED
        if self.heartbeat.is_happy:
            flags |= ROUND_HAPPY
        if self.heartbeat.votes:
            flags |= ROUND_VOTES
        if self.heartbeat.is_candidate:
            flags |= ROUND_CANDIDATE
        # A gap needs a fetch at once; a mere delay gets two rounds to mend itself.
        if self.learner.has_gap() or self.lag_rounds >= 2:
            flags |= ROUND_LAGGING
        if self.heartbeat.heard == self.peers.count:
            flags |= ROUND_ALL_HEARD
        if not wanted and (
            not flags & (ROUND_CANDIDATE | ROUND_LAGGING) and flags & ROUND_HAPPY
            and flags == self.told_flags and self.heartbeat.leader == self.told_leader
        ):
            return
        self.told_flags = flags
        self.told_leader = self.heartbeat.leader
        summary.round = self.heartbeat.round
        summary.promised = self.acceptor.promised
        summary.chosen_upto = self.learner.chosen_upto
        summary.ballot = self.proposer.ballot
        summary.leader = self.heartbeat.leader
        summary.best_chosen = self.heartbeat.best_chosen
        summary.config_slot = self.peers.config_slot
        summary.flags = flags
        summary.best_peer = self.heartbeat.best_peer
        summary.heard = <uint16_t>self.heartbeat.heard
        header = self.peers.header(ROUND_CLOSED, self.peers.node_id)
        header.detail = wanted      # 1: no round has closed, a burst of chosen values has come to its end
        payload = buffer_copy(&summary, sizeof(summary))
        if payload == NULL:
            self.ready.out_of_memory = True
            return
        header_seal(&header, payload, crc32c(0, payload.data, payload.size))
        self.ready.add_cold(&header, payload)

    # ---- leading -----------------------------------------------------------------------------------------

    cdef void _check_leadership(self) noexcept nogil:
        if self.proposer.ballot != BALLOT_NONE and self.acceptor.promised > self.proposer.ballot:
            self._stop_leading()

    cdef void _stop_leading(self) noexcept nogil:
        cdef FrameHeader header
        if self.proposer.ballot == BALLOT_NONE:
            return
        header = self.peers.header(STOPPED_LEADING, self.peers.node_id)
        header.ballot = self.proposer.ballot
        header_seal(&header, NULL, 0)
        self.proposer.stop()
        self.heartbeat.own_ballot = BALLOT_NONE
        if self.heartbeat.leader == header.ballot:
            self.heartbeat.leader = BALLOT_NONE
            self.heartbeat.is_happy = False
        self.transfer_until_us = 0
        self.outbox.sent = self.outbox.head
        self.outbox.sent_to = BALLOT_NONE
        self.count.step_downs += 1
        self._to_control(&header, NULL)

    cdef void on_intent(self, Intent *intent) noexcept nogil:
        cdef Outgoing outgoing
        if self.fault:
            intent_free(intent)
            return
        if intent.kind == INTENT_CAMPAIGN:
            self._campaign(intent)
        elif intent.kind == INTENT_LEAD:
            self._lead(intent)
        elif intent.kind == INTENT_RESIGN:
            self._stop_leading()
        elif intent.kind == INTENT_TRANSFER:
            self._transfer(<uint16_t>intent.slot)
        elif intent.kind == INTENT_CONFIGURE:
            self.peers.install(intent.slot, intent.values[0].data, intent.values[0].size)
        elif intent.kind == INTENT_SEND:
            if intent.header.receiver == self.peers.node_id:
                if intent.header.kind == FETCH:
                    self.acceptor.on_fetch(&intent.header)     # from itself to itself; the answer comes back cold
            else:
                outgoing.header = intent.header
                outgoing.payload = buffer_retain(intent.values[0]) if intent.count else NULL
                self.ready.add_now(&outgoing)
        intent_free(intent)

    cdef void _campaign(self, const Intent *intent) noexcept nogil:
        cdef Outgoing outgoing
        cdef int place
        if (
            intent.ballot < self.acceptor.promised
            or ballot_node(intent.ballot) != self.peers.node_id
            or intent.ballot <= self.proposer.last_led
            or self.acceptor.is_quarantined
            or self.peers.own < 0
        ):
            self.count.stale_intents += 1
            return
        if intent.ballot > self.acceptor.promised:
            self.acceptor.mark = self.learner.known_upto
            self.acceptor.raise_promise(intent.ballot)
            self._check_leadership()
        self.acceptor.report(intent.ballot, intent.slot, self.peers.node_id)
        for place in range(self.peers.count):
            if place == self.peers.own:
                continue
            outgoing.header = self.peers.header(PREPARE, self.peers.items[place].node_id)
            outgoing.header.ballot = intent.ballot
            outgoing.header.slot = intent.slot
            outgoing.header.mark = self.peers.config_slot
            outgoing.payload = NULL
            header_seal(&outgoing.header, NULL, 0)
            self.ready.add_after_sync(&outgoing)    # the own promise is durable before anyone hears of it

    cdef void _lead(self, Intent *intent) noexcept nogil:
        cdef uint64_t first = self.learner.chosen_upto + 1
        cdef uint64_t skipped, recovered = 0
        cdef bint queued = True
        cdef size_t i
        cdef BatchHead head
        cdef Buffer *value
        if (
            intent.ballot != self.acceptor.promised
            or intent.ballot != self.acceptor.promised_durable
            or ballot_node(intent.ballot) != self.peers.node_id
            or intent.ballot <= self.proposer.last_led
            or self.acceptor.is_quarantined
            or self.peers.own < 0
            or intent.slot > first
        ):
            self.count.stale_intents += 1
            return
        # Slots learned as chosen since the intent was made keep their values; the intent holds the same ones.
        skipped = first - intent.slot
        if skipped < intent.count:
            recovered = intent.count - skipped
        self.proposer.lead(intent.ballot, first, recovered, self.learner.sessions)
        self.acceptor.open_own(intent.ballot, first)
        self.learner.start_counting(intent.ballot, first)
        self.heartbeat.own_ballot = intent.ballot
        self.heartbeat.follow(intent.ballot)
        self.heartbeat.last_connected_us = self.now_us
        self.progress_us = self.now_us
        self.progress_upto = self.learner.chosen_upto
        self.count.elections += 1
        self.told_flags = 0
        for i in range(<size_t>skipped, intent.count):
            value = intent.values[i]
            # As the learner will decide: what is no whole batch moves no session.
            if intent.value_kinds[i] == BATCH and value != NULL and batch_valid(value.data, value.size, &head):
                self.proposer.sessions.admit(&head)
            queued = queued and self.proposer.enqueue(
                intent.value_kinds[i], buffer_retain(value),
                crc32c(0, value.data, value.size) if value != NULL else 0,
            )
        if not queued or not self.proposer.enqueue(NOOP, NULL, 0):
            self._stop(FAULT_MEMORY, 0)     # what comes behind a lost value would move into wrong slots
            return
        self._propose_outbox()
        self._pump()

    cdef void _transfer(self, uint16_t heir) noexcept nogil:
        cdef FrameHeader header
        cdef int place
        if self.proposer.ballot == BALLOT_NONE or heir == self.peers.node_id or self.peers.place(heir) < 0:
            self.count.stale_intents += 1
            return
        self.transfer_until_us = self.now_us + self.heartbeat.election_timeout_us
        for place in range(self.peers.count):
            header = self.peers.header(TRANSFER, self.peers.items[place].node_id)
            header.ballot = self.proposer.ballot
            header.slot = heir
            if place == self.peers.own:
                self.acceptor.on_transfer(&header)
            else:
                self._send(&header, NULL, 0)

    # ---- values ------------------------------------------------------------------------------------------

    cdef bint has_room(self) noexcept nogil:
        if (
            self.fault or self.transfer_until_us or self.is_disk_low
            or self.outbox.held_bytes > self.proposer.window_bytes
        ):
            return False
        if self.proposer.ballot != BALLOT_NONE:
            # Behind a backlog of forwarded batches, one own batch at a time: nobody starves.
            if self.proposer.backlog_head != self.proposer.backlog_tail:
                return self.outbox.count() == 0 and self.proposer.backlog_bytes <= self.proposer.window_bytes
            return self.proposer.has_room()
        # Without a leader of its own a node may still hear a peer that is happy with one, and forwards there.
        return (
            (self.heartbeat.leader != BALLOT_NONE or self.heartbeat.relay != 0)
            and self.outbox.count() < OUTBOX_BATCHES_MAX
            and self.outbox.held_bytes < self.proposer.window_bytes // FORWARD_SHARE
        )

    cdef bint may_spin(self) noexcept nogil:
        return self.proposer.ballot != BALLOT_NONE and self.proposer.next_slot - 1 > self.learner.chosen_upto

    cdef void offer(self, Buffer *value, uint32_t value_crc) noexcept nogil:
        if not self.outbox.count():
            self.outbox.sent_us = self.now_us
        if not self.outbox.push(value, value_crc):
            self.ready.out_of_memory = True
            return
        if self.proposer.ballot != BALLOT_NONE:
            if self.proposer.enqueue_batch(buffer_retain(value), value_crc) == 1:
                self._pump()
            else:
                buffer_release(value)       # the next tick offers it again
        else:
            self._forward_outbox(False)

    cdef void _propose_outbox(self) noexcept nogil:
        cdef uint64_t i
        cdef Buffer *value
        for i in range(self.outbox.head, self.outbox.tail):
            value = buffer_retain(self.outbox.at(i).value)
            if self.proposer.enqueue_batch(value, self.outbox.at(i).crc) != 1:
                buffer_release(value)

    cdef void _forward_outbox(self, bint again) noexcept nogil:
        """Send the own batches that the present leader has not been sent; all of them if `again`."""
        cdef Outgoing outgoing
        cdef uint64_t i
        cdef uint16_t target = <uint16_t>ballot_node(self.heartbeat.leader)
        if self.heartbeat.relay and not self.heartbeat.is_happy:
            target = self.heartbeat.relay       # the leader is heard of only through a peer that hears it
        if target == 0 or target == self.peers.node_id:
            return
        if again or self.outbox.sent_to != self.heartbeat.leader:
            self.outbox.sent = self.outbox.head
            self.outbox.sent_to = self.heartbeat.leader
        if self.outbox.sent == self.outbox.tail:
            return
        if self.outbox.sent == self.outbox.head:
            self.outbox.sent_us = self.now_us
        for i in range(self.outbox.sent, self.outbox.tail):
            outgoing.header = self.peers.header(FORWARD, target)
            outgoing.payload = buffer_retain(self.outbox.at(i).value)
            header_seal(&outgoing.header, outgoing.payload, self.outbox.at(i).crc)
            self.ready.add_now(&outgoing)
            self.count.forwarded += 1
        self.outbox.sent = self.outbox.tail

    cdef void _pump(self) noexcept nogil:
        """Give slots to waiting values while the window has room, and stream them."""
        cdef Waiting waiting
        cdef Slot *entry
        self.acceptor.mark = self.learner.known_upto
        while self.proposer.take(&waiting):
            entry = self.slots.get(self.proposer.next_slot)
            if entry != NULL and entry.ballot == BALLOT_CHOSEN and (
                entry.kind != waiting.kind or entry.value_crc != waiting.crc
                or entry.length != (waiting.value.size if waiting.value != NULL else 0)
            ):
                # Learned meanwhile as chosen, with another value: a higher ballot leads [h25].
                buffer_release(waiting.value)
                self._stop_leading()
                return
            entry = self.acceptor.accept_own(self.proposer.next_slot, waiting.kind, waiting.value, waiting.crc)
            if entry == NULL:
                self.ready.out_of_memory = True
                return
            self.proposer.proposed(entry)
        self.proposer.feed()

    # ---- after the sync ----------------------------------------------------------------------------------

    cdef void advance(self, uint64_t now_us) noexcept nogil:
        cdef size_t i, kept = 0
        cdef Record *record
        cdef Slot *entry
        cdef OutgoingList *after = &self.ready.send_after_sync
        if self.fault:
            return
        self.now_us = now_us
        for i in range(self.ready.records.count):
            record = &self.ready.records.items[i]
            if record.kind == RECORD_ACCEPT or record.kind == RECORD_CHOSEN:
                entry = self.slots.get(record.slot)
                if entry != NULL and entry.ballot == record.ballot:
                    entry.position = record.position
        self.ready.clear_records()
        self.acceptor.advance()
        if self.proposer.ballot != BALLOT_NONE:
            self.learner.on_accepted(self.peers.node_id, self.proposer.ballot, self.acceptor.durable_upto)
        self.learner.advance_known()
        self._learn()
        # What this node sends to itself (its own report, its own values) is cold, and durable now.
        for i in range(after.count):
            if after.items[i].header.receiver == self.peers.node_id:
                self.ready.add_cold(&after.items[i].header, after.items[i].payload)
            else:
                after.items[kept] = after.items[i]
                kept += 1
        after.count = kept
        if self.proposer.ballot != BALLOT_NONE:
            self._pump()
            self.proposer.announce()
        if self.burst_ended:
            self.burst_ended = False
            self._tell_control(True)
        if self.ready.out_of_memory:
            self._stop(FAULT_MEMORY, 0)

    cdef void _learn(self) noexcept nogil:
        """Hand on what is chosen and durable, and let the roles know."""
        cdef size_t i = self.ready.chosen.count
        cdef Chosen *chosen
        cdef FrameHeader header
        if not self.learner.advance_durable():
            self._stop(FAULT_MEMORY, self.learner.chosen_upto + 1)
            return
        for i in range(i, self.ready.chosen.count):
            chosen = &self.ready.chosen.items[i]
            # Only an admitted batch is done: one that was chosen before its predecessor is sent again.
            if chosen.index and chosen.origin == self.peers.node_id and chosen.incarnation == self.peers.incarnation:
                self.outbox.drop_upto(chosen.first_ticket + chosen.count - 1, self.now_us)
            elif chosen.kind == CONFIGURATION:
                header = self.peers.header(CHOSEN, self.peers.node_id)
                header.slot = chosen.slot
                header.detail = CONFIGURATION
                header_seal(&header, chosen.value, chosen.value_crc)
                self._to_control(&header, chosen.value)
        self.acceptor.chosen_upto = self.learner.chosen_upto
        self.proposer.on_chosen(self.learner.chosen_upto)
        self._let_go()

    cdef void _let_go(self) noexcept nogil:
        """Forget the oldest chosen values beyond what is kept to serve members that missed them."""
        while self.slots.base <= self.learner.chosen_upto and (
            self.slots.held_bytes > self.retained_bytes_max
            or self.learner.chosen_upto - self.slots.base >= 4 * self.proposer.window_slots
        ):
            self.slots.drop_below(self.slots.base + 1)

    cdef void poison(self) noexcept nogil:
        self._stop(FAULT_DISK, 0)

    cdef void _stop(self, int fault, uint64_t slot) noexcept nogil:
        if self.fault:
            return
        self.fault = fault
        self.fault_slot = slot
        self.proposer.stop()
        self.ready.clear_records()
        self.ready.clear_outgoing(&self.ready.send_now)
        self.ready.clear_outgoing(&self.ready.send_after_sync)

    # ---- restart -----------------------------------------------------------------------------------------

    cdef void recover(self, const Record *record) noexcept nogil:
        cdef Slot *entry
        self.acceptor.recover(record)
        # A mark follows the values that it covers in the same log, so these are in the table by now [h3].
        if record.mark > self.recovered_mark:
            self.recovered_mark = record.mark
        # One that was damaged and has been healed since does not end what an earlier mark said.
        while self.learner.known_upto < self.recovered_mark:
            entry = self.slots.get(self.learner.known_upto + 1)
            if entry == NULL or entry.ballot == BALLOT_NONE or entry.flags:
                break
            self.learner.known_upto += 1
        self._learn()

    cdef void finish_recovery(self) noexcept nogil:
        cdef const Slot *entry
        self.learner.advance_known()
        self._learn()
        self.acceptor.mark = self.learner.known_upto
        # A ballot of an earlier life may have been led: none of those is ever used again (P3, P11).
        self.proposer.last_led = self.acceptor.promised
        self.is_recovering = False
        if self.ready.out_of_memory:
            self._stop(FAULT_MEMORY, 0)
        entry = self.slots.get(self.learner.known_upto + 1)
        if self.learner.known_upto < self.recovered_mark and (entry == NULL or not entry.flags):
            # The log says that more is chosen than it holds, and no damaged record explains it.
            self._stop(FAULT_RECOVERY, self.learner.known_upto + 1)
