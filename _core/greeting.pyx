"""Who a peer is, and who this node is to its peers: Hello, memory of every member, quarantine."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset

from paxos._core.buffer cimport buffer_copy
from paxos._core.codec cimport (
    HELLO, HELLO_ANSWER_WANTED, HELLO_BYTES_LEAST, HELLO_QUARANTINED, PROTOCOL_VERSION, REFUSE, REFUSE_DUPLICATE,
    REFUSE_ROLLED_BACK, REFUSE_STORAGE, RefusePayload,
)
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport (
    QUARANTINE_DUPLICATE, QUARANTINE_ROLLED_BACK, RECORD_PEER, RECORD_QUARANTINE, Record,
)
from paxos._core.intent cimport INTENT_CAMPAIGN, Intent, intent_free
from paxos._core.peers cimport Peer

cdef enum:
    SETTLE_PERIODS = 3           # a restarted node waits so long for peers that do not answer its first Hello
    NOTE_ROUNDS = 256            # what a peer has shown is noted at most so often, and only with other records


cdef class GreetingCore(LeadingCore):
    """The part of a node that knows whom it talks to."""

    # ---- Hello ----------------------------------------------------------------------------------------

    cdef void _on_hello(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef HelloPayload hello
        cdef int place = self.peers.place(header.sender)
        cdef Peer *peer = &self.peers.items[place]
        cdef int reason
        cdef bint has_forgotten
        if payload == NULL or payload.size < HELLO_BYTES_LEAST:
            self.count.broken += 1
            return
        memset(&hello, 0, sizeof(hello))
        memcpy(&hello, payload.data, min(payload.size, sizeof(hello)))
        if hello.version_min > PROTOCOL_VERSION or hello.version_max < PROTOCOL_VERSION:
            self.count.broken += 1
            return
        if not peer.is_bound:
            # Until slot 1 binds one of them, a member may begin again with another directory [h13].
            self.peers.meet(place, hello.storage)
        elif memcmp(hello.storage, peer.storage, 16) != 0:
            self.count.wrong_storage += 1      # a wiped, copied or foreign disk under a member's id
            if header.incarnation == peer.incarnation:
                peer.is_verified = False       # its frames cannot be told from those of the life that was known
            self._refuse(header.sender, header.incarnation, hello.nonce, REFUSE_STORAGE)
            return
        reason = self._judge(place, header.incarnation, &hello)
        if reason:
            self.count.refused_hellos += 1
            if peer.is_verified and header.incarnation == peer.incarnation and not hello.flags & HELLO_QUARANTINED:
                peer.is_quarantined = True     # nothing tells the frames of the two apart: neither votes here
            self._refuse(header.sender, header.incarnation, hello.nonce, <uint32_t>reason)
            return
        has_forgotten = hello.flags & HELLO_QUARANTINED and self._has_forgotten(place, header.incarnation, &hello)
        if has_forgotten:
            # It may learn, and is told, as often as it asks: a log that is only being repaired must not outgrow what it has forgotten.
            self._refuse(header.sender, header.incarnation, hello.nonce, REFUSE_ROLLED_BACK)
        if not peer.is_verified or header.incarnation != peer.incarnation:
            peer.is_quarantined = False
        peer.is_quarantined = peer.is_quarantined or (hello.flags & HELLO_QUARANTINED) != 0
        peer.incarnation = header.incarnation
        peer.nonce = hello.nonce
        peer.is_verified = True
        if not has_forgotten:
            if header.incarnation >= peer.seen_incarnation:
                peer.seen_incarnation = header.incarnation
                peer.seen_nonce = hello.nonce
            self._saw(place, hello.promised, hello.position)
        if hello.answers == self.peers.nonce and hello.answers:
            peer.has_answered = True
            self._settle()
        if hello.flags & HELLO_ANSWER_WANTED:
            self._send_hello(header.sender, 0, hello.nonce)

    cdef int _judge(self, int place, uint64_t incarnation, const HelloPayload *hello) noexcept nogil:
        """0, or why (RefuseReason) this life of a member is not the one that it was, or not the only one."""
        cdef Peer *peer = &self.peers.items[place]
        cdef bint is_alive = peer.is_verified and self.heartbeat.expected[place]
        cdef bint is_other = peer.nonce != 0 and hello.nonce != 0 and peer.nonce != hello.nonce
        if peer.is_verified and incarnation == peer.incarnation and not is_other:
            return 0
        if hello.flags & HELLO_QUARANTINED:
            # It only learns: whatever it has forgotten, nobody counts on it. But it takes no place that is taken.
            return REFUSE_DUPLICATE if is_alive else 0
        if peer.is_verified and incarnation <= peer.incarnation:
            return REFUSE_DUPLICATE if is_alive else REFUSE_ROLLED_BACK
        return REFUSE_ROLLED_BACK if self._has_forgotten(place, incarnation, hello) else 0

    cdef bint _has_forgotten(self, int place, uint64_t incarnation, const HelloPayload *hello) noexcept nogil:
        """Tell whether a member shows less than what it has shown before."""
        cdef const Peer *peer = &self.peers.items[place]
        if incarnation < peer.seen_incarnation:
            return True
        if incarnation == peer.seen_incarnation:
            # Known from before this node's own restart: the same life, or a number that is used again.
            return peer.seen_nonce != 0 and hello.nonce != 0 and peer.seen_nonce != hello.nonce
        return hello.nonce != 0 and (hello.promised < peer.seen_promised or hello.position < peer.seen_position)

    cdef void _saw(self, int place, uint64_t promised, uint64_t position) noexcept nogil:
        cdef Peer *peer = &self.peers.items[place]
        if peer.incarnation < peer.seen_incarnation:
            return
        peer.seen_promised = max(peer.seen_promised, promised)
        peer.seen_position = max(peer.seen_position, position)

    cdef void _on_unverified(self, int place, const FrameHeader *header) noexcept nogil:
        """A frame of a life that is not the one known: ask who it is, or tell it that it is not alone."""
        cdef Peer *peer = &self.peers.items[place]
        self.count.unverified += 1
        if self.hello_round == self.heartbeat.round:
            return
        self.hello_round = self.heartbeat.round
        if header.incarnation >= peer.incarnation or not peer.is_verified or not peer.is_bound:
            self._greet(place)      # numbers of two directories cannot be compared
        elif self.heartbeat.expected[place]:
            # A frame that was late says so, too: whoever sent it is gone, and nobody else feels meant.
            self._refuse(header.sender, header.incarnation, 0, REFUSE_DUPLICATE)

    cdef void _greet(self, int place) noexcept nogil:
        self._send_hello(self.peers.items[place].node_id, HELLO_ANSWER_WANTED, 0)

    cdef void _send_hello(self, uint16_t receiver, uint32_t flags, uint64_t answers) noexcept nogil:
        cdef HelloPayload hello
        cdef FrameHeader header = self.peers.header(HELLO, receiver)
        memset(&hello, 0, sizeof(hello))
        hello.version_min = PROTOCOL_VERSION
        hello.version_max = PROTOCOL_VERSION
        hello.flags = flags | (HELLO_QUARANTINED if self.acceptor.is_quarantined else 0)
        memcpy(hello.storage, self.peers.storage, 16)
        hello.nonce = self.peers.nonce
        hello.answers = answers
        hello.promised = self.started_promised
        hello.position = self.started_position
        self._send(&header, &hello, sizeof(hello))

    # ---- refusals, quarantine -------------------------------------------------------------------------

    cdef void _refuse(self, uint16_t receiver, uint64_t incarnation, uint64_t nonce, uint32_t reason) noexcept nogil:
        cdef RefusePayload refusal
        cdef FrameHeader header = self.peers.header(REFUSE, receiver)
        cdef const Peer *peer = &self.peers.items[self.peers.place(receiver)]
        memset(&refusal, 0, sizeof(refusal))
        refusal.incarnation = incarnation
        refusal.nonce = nonce
        refusal.seen_incarnation = max(peer.seen_incarnation, peer.incarnation)
        refusal.seen_promised = peer.seen_promised
        refusal.seen_position = peer.seen_position
        refusal.reason = reason
        self._send(&header, &refusal, sizeof(refusal))

    cdef void _on_refuse(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        cdef RefusePayload refusal
        cdef const Peer *peer = &self.peers.items[self.peers.place(header.sender)]
        cdef bint is_verified = peer.is_verified and header.incarnation == peer.incarnation
        if payload == NULL or payload.size < sizeof(refusal):
            self.count.broken += 1
            return
        memcpy(&refusal, payload.data, sizeof(refusal))
        if refusal.incarnation != self.peers.incarnation or (refusal.nonce and refusal.nonce != self.peers.nonce):
            return      # an earlier life is meant, or the other process
        if not refusal.nonce and not is_verified:
            return      # whoever repeats a nonce has heard this very life; anybody else must be known
        self.count.refusals += 1
        if refusal.reason == REFUSE_ROLLED_BACK:
            self.enter_quarantine(QUARANTINE_ROLLED_BACK)
        elif refusal.reason == REFUSE_DUPLICATE and not self.acceptor.is_quarantined:
            self.enter_quarantine(QUARANTINE_DUPLICATE)

    cdef bint may_vote(self) noexcept nogil:
        return not (self.acceptor.is_quarantined or self.is_settling or self.is_disk_low)

    cdef void enter_quarantine(self, int reason) noexcept nogil:
        cdef Record record
        cdef int place
        if self.acceptor.is_quarantined and self.acceptor.quarantine_reason:
            return
        self.acceptor.is_quarantined = True
        self.acceptor.quarantine_reason = reason
        self.acceptor.ack_due = False
        self._stop_leading()
        # What was about to leave may be a vote or a proposal.
        self.ready.clear_outgoing(&self.ready.send_now)
        self.ready.clear_outgoing(&self.ready.send_after_sync)
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_QUARANTINE
        record.group = self.peers.group
        record.slot = <uint64_t>reason
        record.mark = self.acceptor.mark
        self.ready.add_record(&record)
        if self.is_recovering:
            return
        for place in range(self.peers.count):
            if place != self.peers.own:
                self._greet(place)

    # ---- the first moments of a life ------------------------------------------------------------------

    cdef void finish_recovery(self) noexcept nogil:
        LeadingCore.finish_recovery(self)
        self.started_promised = self.acceptor.promised
        self.started_position = self.log_position
        # What a first life knows cannot be older than what it was. Everybody else asks before it votes.
        self.is_settling = self.log_position != 0 and self.peers.nonce != 0

    cdef void on_intent(self, Intent *intent) noexcept nogil:
        if self.is_settling and intent.kind == INTENT_CAMPAIGN:
            self.count.stale_intents += 1      # asked to take over before it could hear what it is; control repeats it
            intent_free(intent)
            return
        LeadingCore.on_intent(self, intent)

    cdef void _settle(self) noexcept nogil:
        """End the wait for answers to the first Hello: all are there, or whoever is silent cannot be reached."""
        cdef int place
        if not self.is_settling:
            return
        if not self.settling_until_us:
            self.settling_until_us = self.now_us + SETTLE_PERIODS * self.heartbeat.period_us
        if self.now_us < self.settling_until_us:
            for place in range(self.peers.count):
                if place != self.peers.own and not self.peers.items[place].has_answered:
                    return
        self.is_settling = False

    cdef void _note_peers(self) noexcept nogil:
        """Remember durably what the members have shown; at the latest with the next record of any kind."""
        cdef int place
        cdef Peer *peer
        cdef Record record
        cdef PeerNote note
        cdef bint is_new
        if self.is_settling or self.acceptor.is_quarantined:
            return
        for place in range(self.peers.count):
            peer = &self.peers.items[place]
            is_new = peer.seen_incarnation != peer.noted_incarnation
            if not peer.seen_nonce or not self.ready.records.count or not (
                is_new or (
                    peer.seen_position != peer.noted_position
                    and self.heartbeat.round >= peer.noted_round + NOTE_ROUNDS
                )
            ):
                continue
            memset(&record, 0, sizeof(record))
            memset(&note, 0, sizeof(note))
            note.node_id = peer.node_id
            note.nonce = peer.seen_nonce
            note.position = peer.seen_position
            memcpy(note.storage, peer.storage, 16)
            record.kind = RECORD_PEER
            record.group = self.peers.group
            record.slot = peer.seen_incarnation
            record.ballot = peer.seen_promised
            record.mark = self.acceptor.mark
            record.value = buffer_copy(&note, sizeof(note))
            if record.value == NULL:
                return      # another time
            record.length = sizeof(note)
            record.value_crc = crc32c(0, <const uint8_t *>&note, sizeof(note))
            self.ready.add_record(&record)
            peer.noted_incarnation = peer.seen_incarnation
            peer.noted_position = peer.seen_position
            peer.noted_round = self.heartbeat.round

    cdef void recover(self, const Record *record) noexcept nogil:
        cdef PeerNote note
        cdef int place
        cdef Peer *peer
        LeadingCore.recover(self, record)
        if record.kind != RECORD_PEER or record.value == NULL or record.value.size < sizeof(note):
            return
        memcpy(&note, record.value.data, sizeof(note))
        place = self.peers.place(note.node_id)
        if place < 0:
            return
        peer = &self.peers.items[place]
        if not peer.is_bound:
            self.peers.meet(place, note.storage)
        elif memcmp(peer.storage, note.storage, 16) != 0:
            return
        peer.seen_incarnation = max(peer.seen_incarnation, record.slot)
        peer.seen_nonce = note.nonce
        peer.seen_promised = max(peer.seen_promised, record.ballot)
        peer.seen_position = max(peer.seen_position, note.position)
        peer.noted_incarnation = peer.seen_incarnation
        peer.noted_position = peer.seen_position
