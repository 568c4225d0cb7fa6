"""The way of a value through one node: offered, proposed or forwarded, durable, chosen, handed on.

The roles know nothing of each other; here they are put together. What enters from outside (frames, time) is
``_core/engine``; what the control thread asks for is ``_core/leading``.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.ballot cimport BALLOT_CHOSEN, BALLOT_NONE, ballot_node
from paxos._core.buffer cimport buffer_copy, buffer_release, buffer_retain
from paxos._core.codec cimport (
    CHOSEN, CONFIGURATION, FORWARD, NACK, NACK_PROMISED, ROUND_ALL_HEARD, ROUND_CANDIDATE, ROUND_CLOSED,
    ROUND_CONNECTED, ROUND_HAPPY, ROUND_LAGGING, ROUND_LEADS, ROUND_VOTES, STOPPED_LEADING, RoundSummary,
    header_seal,
)
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport Chosen, Outgoing, OutgoingList, RECORD_ACCEPT, RECORD_CHOSEN
from paxos._core.proposer cimport Waiting
from paxos._core.slots cimport Slot
from paxos._core.wal_format cimport RECORD_GAP

cdef enum:
    OUTBOX_BATCHES_MAX = 64      # own batches under way to a leader elsewhere
    FORWARD_SHARE = 4            # part of the leader's window that one other node may fill


cdef class PipelineCore:
    """The way of a value through one node; see the head of ``_core/pipeline.pxd``.

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

    # ---- values ---------------------------------------------------------------------------------------

    cdef bint has_room(self) noexcept nogil:
        if (
            self.fault or self.transfer_until_us or self.is_disk_low or self.acceptor.is_quarantined
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
            self.outbox.has_moved = False
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
        while self.proposer.ballot != BALLOT_NONE and self.proposer.next_slot <= self.learner.known_upto:
            # Held as chosen out of order since before this node led, and now within the known prefix.
            if self.proposer.next_slot >= self.proposer.own_noop_slot:
                self._stop_leading()    # chosen where phase 1 found nothing: a higher ballot leads [h25]
                return
            self.proposer.skip()
            self.acceptor.stream_next = self.proposer.next_slot
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

    # ---- after the sync -------------------------------------------------------------------------------

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
            self.log_position = max(self.log_position, record.position)
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
        if not self.learner.advance_durable():
            self._stop(FAULT_MEMORY, self.learner.chosen_upto + 1)
            return
        for i in range(i, self.ready.chosen.count):
            chosen = &self.ready.chosen.items[i]
            # Only an admitted batch is done: one that was chosen before its predecessor is sent again.
            if chosen.index and chosen.origin == self.peers.node_id and chosen.incarnation == self.peers.incarnation:
                self.outbox.drop_upto(chosen.first_ticket + chosen.count - 1, self.now_us)
            elif chosen.kind == CONFIGURATION:
                self._configure(chosen.slot, chosen.value, chosen.value_crc)
        self.acceptor.chosen_upto = self.learner.chosen_upto
        self.proposer.on_chosen(self.learner.chosen_upto)
        self._let_go()

    cdef void _configure(self, uint64_t slot, Buffer *value, uint32_t value_crc) noexcept nogil:
        """The configuration in `slot` is chosen: it governs from here on, and the control thread learns of it."""
        cdef FrameHeader header = self.peers.header(CHOSEN, self.peers.node_id)
        if value == NULL or not self.peers.install(slot, value.data, value.size):
            return
        header.slot = slot
        header.detail = CONFIGURATION
        header_seal(&header, value, value_crc)
        self._to_control(&header, value)

    cdef void _let_go(self) noexcept nogil:
        """Forget the oldest chosen values beyond what is kept to serve members that missed them."""
        while self.slots.base <= self.learner.chosen_upto and (
            self.slots.held_bytes > self.retained_bytes_max
            or self.learner.chosen_upto - self.slots.base >= 4 * self.proposer.window_slots
        ):
            self.slots.drop_below(self.slots.base + 1)

    # ---- what the control thread is told --------------------------------------------------------------

    cdef void _to_control(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        self.ready.add_cold(header, buffer_retain(payload))

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
        summary.patience_us = self.heartbeat.patience_us()
        header = self.peers.header(ROUND_CLOSED, self.peers.node_id)
        header.detail = wanted      # 1: no round has closed, a burst of chosen values has come to its end
        payload = buffer_copy(&summary, sizeof(summary))
        if payload == NULL:
            self.ready.out_of_memory = True
            return
        header_seal(&header, payload, crc32c(0, payload.data, payload.size))
        self.ready.add_cold(&header, payload)

    # ---- stopping -------------------------------------------------------------------------------------

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

    # ---- restart --------------------------------------------------------------------------------------

    cdef void recover(self, const Record *record) noexcept nogil:
        cdef Slot *entry
        if record.kind == RECORD_GAP:
            self._forget_unchosen()
            return
        self.log_position = max(self.log_position, record.position)
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

    cdef void _forget_unchosen(self) noexcept nogil:
        """Records may be missing here. What was accepted before and is not known to be chosen may have been accepted
        again among them, with another value: later marks must not make it chosen. Only in quarantine."""
        cdef uint64_t slot
        cdef Slot *entry
        self.acceptor.is_quarantined = True
        for slot in range(self.learner.known_upto + 1, self.slots.top + 1):
            entry = self.slots.get(slot)
            if entry != NULL and entry.ballot != BALLOT_CHOSEN:
                self.slots.put(entry, BALLOT_NONE, 0, NULL, 0)

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
        if not self.acceptor.is_quarantined and (
            self.learner.known_upto < self.acceptor.trimmed
            or (self.learner.known_upto < self.recovered_mark and (entry == NULL or not entry.flags))
        ):
            # The log says that more is chosen than it holds, and no damaged record explains it.
            self._stop(FAULT_RECOVERY, self.learner.known_upto + 1)
