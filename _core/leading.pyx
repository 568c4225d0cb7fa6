"""What the control thread asks of the reactor: campaign, lead, hand over, send.

Every intent was made from copies and may be late, so each is checked against the present state first.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from paxos._core.ballot cimport BALLOT_NONE, ballot_node
from paxos._core.buffer cimport Buffer, buffer_retain
from paxos._core.codec cimport BATCH, FETCH, NOOP, PREPARE, TRANSFER, BatchHead, FrameHeader, batch_valid, header_seal
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport CHOSEN_SNAPSHOT, Chosen, Outgoing
from paxos._core.intent cimport (
    INTENT_CAMPAIGN, INTENT_CONFIGURE, INTENT_INSTALL, INTENT_LEAD, INTENT_RESIGN, INTENT_SEND, INTENT_TRANSFER,
    INTENT_TRIM, intent_free,
)
from paxos._core.pipeline cimport FAULT_MEMORY, PipelineCore
from paxos._core.sessions cimport PACKED_SESSION_BYTES, Session


cdef class LeadingCore(PipelineCore):
    """The part of a node that takes intents."""

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
        elif intent.kind == INTENT_TRIM:
            self._trim(intent.slot)
        elif intent.kind == INTENT_INSTALL:
            self._install(intent)
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
            or (intent.ballot > self.acceptor.promised and self._somebody_leads())
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

    cdef bint _somebody_leads(self) noexcept nogil:
        """Tell whether another node leads as far as is known *now*: a candidate looks again before it starts."""
        if ballot_node(self.heartbeat.leader) == self.peers.node_id or self.heartbeat.leader < self.acceptor.promised:
            return False
        if (
            self.acceptor.transfer_heir == self.peers.node_id and self.acceptor.transfer_ballot != BALLOT_NONE
            and self.acceptor.promised <= self.acceptor.transfer_ballot
        ):
            return False
        # A leader that has just opened its stream was not there when the last round closed.
        return self.heartbeat.leader != BALLOT_NONE and (self.heartbeat.is_happy or self.heartbeat.leader_is_new)

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

    cdef void _trim(self, uint64_t upto) noexcept nogil:
        """Let go of slots that a durable snapshot covers. Only what is chosen, known here and handed on."""
        if upto > self.learner.chosen_upto or upto <= self.acceptor.trimmed:
            self.count.stale_intents += 1
            return
        self.acceptor.mark = self.learner.known_upto
        self.acceptor.trim(upto)

    cdef void _install(self, const Intent *intent) noexcept nogil:
        """Go on behind a durable snapshot [h1]. Votes above it are kept, and so is the promise."""
        cdef Buffer *sessions = intent.values[0]
        cdef Chosen installed
        cdef Session *own
        if intent.slot <= self.learner.known_upto:
            self.count.stale_intents += 1
            return
        # Whoever lacked what is chosen somewhere cannot vouch for what it proposed there [h25].
        self._stop_leading()
        if not self.learner.sessions.load(
            sessions.data if sessions != NULL else NULL,
            <int>(sessions.size // PACKED_SESSION_BYTES) if sessions != NULL else 0,
        ):
            self._stop(FAULT_MEMORY, intent.slot)
            return
        self.learner.start_from(intent.slot, intent.ballot, intent.header.slot)
        if intent.values[1] != NULL:
            self._configure(
                intent.header.slot, intent.values[1], crc32c(0, intent.values[1].data, intent.values[1].size)
            )
        own = self.learner.sessions.find(self.peers.node_id)
        if own != NULL and own.incarnation == self.peers.incarnation:
            self.outbox.drop_upto(own.last_ticket, self.now_us)
        self.acceptor.chosen_upto = intent.slot
        self.acceptor.mark = intent.slot
        if self.is_recovering:
            self.slots.drop_below(intent.slot + 1)
            return
        self.acceptor.trim(intent.slot)
        memset(&installed, 0, sizeof(installed))
        installed.kind = CHOSEN_SNAPSHOT
        installed.slot = intent.slot
        installed.index = intent.ballot
        self.ready.add_chosen(&installed)
        self.learner.advance_known()

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
