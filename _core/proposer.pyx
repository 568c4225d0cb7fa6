"""The proposer in phase 2: a leader that streams values to its members.

The slot of a value is fixed once, at one ballot, by one thread: that is what makes "one value per ballot and
slot" (I1, P11) true. What is sent may be lost; it is sent again until the member's durable mark covers it.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from paxos._core.ballot cimport BALLOT_NONE
from paxos._core.buffer cimport buffer_from_bytes, buffer_release, buffer_retain
from paxos._core.codec cimport (
    ACCEPT, BATCH, CONFIGURATION, DECIDE, NACK_GAP, NACK_STREAM, OPEN, BatchHead, batch_valid, header_seal,
)
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport Outgoing

cdef enum:
    SILENT_ROUNDS_MAX = 2


cdef class ProposerCore:
    """The compiled half of :class:`paxos.Proposer`.

    Args:
        peers: identity of this node and the members.
        slots: what the node holds; shared with the roles beside it.
        ready: where effects go; shared likewise.
        window_slots: slots kept unchosen at a time.
        window_bytes: bytes of values kept unchosen at a time.
    """

    def __init__(
        self,
        Peers peers not None,
        SlotTable slots=None,
        Ready ready=None,
        *,
        window_slots: int = 1024,
        window_bytes: int = 32 << 20,
    ) -> None:
        self.peers = peers
        self.slots = SlotTable() if slots is None else slots
        self.ready = Ready() if ready is None else ready
        self.sessions = Sessions()
        self.window_slots = window_slots
        self.window_bytes = window_bytes

    def __dealloc__(self):
        cdef uint64_t i
        for i in range(self.backlog_head, self.backlog_tail):
            buffer_release(self.backlog[i & (self.backlog_capacity - 1)].value)
        free(self.backlog)

    cdef void lead(self, uint64_t ballot, uint64_t first_slot, uint64_t recovered, Sessions admitted) noexcept nogil:
        self.stop()
        self.ballot = ballot
        self.last_led = ballot
        self.next_slot = first_slot
        self.chosen_upto = first_slot - 1
        self.running_bytes = 0
        self.chosen_running_bytes = 0
        self.own_noop_slot = first_slot + recovered
        memset(self.streams, 0, sizeof(self.streams))
        if not self.sessions.copy_from(admitted):
            self.ready.out_of_memory = True

    cdef void stop(self) noexcept nogil:
        cdef uint64_t i
        for i in range(self.backlog_head, self.backlog_tail):
            buffer_release(self.backlog[i & (self.backlog_capacity - 1)].value)
        self.backlog_head = 0
        self.backlog_tail = 0
        self.backlog_bytes = 0
        self.ballot = BALLOT_NONE
        self.own_noop_slot = 0
        self.barrier_slot = 0

    # ---- from value to slot ------------------------------------------------------------------------------

    cdef bint enqueue(self, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil:
        cdef Waiting *grown
        cdef uint64_t i, larger
        cdef Waiting *place
        if self.backlog_tail - self.backlog_head == self.backlog_capacity:
            larger = 2 * self.backlog_capacity if self.backlog_capacity else 64
            grown = <Waiting *>malloc(larger * sizeof(Waiting))
            if grown == NULL:
                buffer_release(value)
                return False
            for i in range(self.backlog_head, self.backlog_tail):
                grown[i & (larger - 1)] = self.backlog[i & (self.backlog_capacity - 1)]
            free(self.backlog)
            self.backlog = grown
            self.backlog_capacity = larger
        place = &self.backlog[self.backlog_tail & (self.backlog_capacity - 1)]
        place.kind = kind
        place.crc = crc
        place.value = value
        self.backlog_tail += 1
        self.backlog_bytes += value.size if value != NULL else 0
        return True

    cdef int enqueue_batch(self, Buffer *value, uint32_t crc) noexcept nogil:
        cdef BatchHead head
        cdef int admitted
        if not batch_valid(value.data, value.size, &head):
            return 0
        if not self.sessions.would_admit(&head):
            return 0
        if self.backlog_bytes > self.window_bytes:
            return -1
        admitted = self.sessions.admit(&head)
        if admitted <= 0 or not self.enqueue(BATCH, buffer_retain(value), crc):
            self.ready.out_of_memory = True
            return -1               # the caller's reference is still the caller's
        buffer_release(value)
        return 1

    cdef bint has_room(self) noexcept nogil:
        return (
            self.ballot != BALLOT_NONE
            and self.barrier_slot == 0
            and self.next_slot - self.chosen_upto <= self.window_slots
            and self.running_bytes - self.chosen_running_bytes < self.window_bytes
        )

    cdef bint take(self, Waiting *waiting) noexcept nogil:
        if self.backlog_head == self.backlog_tail or not self.has_room():
            return False
        waiting[0] = self.backlog[self.backlog_head & (self.backlog_capacity - 1)]
        self.backlog_head += 1
        self.backlog_bytes -= waiting.value.size if waiting.value != NULL else 0
        return True

    cdef void skip(self) noexcept nogil:
        cdef Waiting *waiting = &self.backlog[self.backlog_head & (self.backlog_capacity - 1)]
        if self.backlog_head == self.backlog_tail:
            return
        self.backlog_bytes -= waiting.value.size if waiting.value != NULL else 0
        buffer_release(waiting.value)
        self.backlog_head += 1
        self.next_slot += 1

    cdef void proposed(self, Slot *entry) noexcept nogil:
        if entry.kind == CONFIGURATION:
            self.barrier_slot = self.next_slot
        self.running_bytes += entry.length
        entry.running_bytes = self.running_bytes
        self.next_slot += 1

    # ---- streams -----------------------------------------------------------------------------------------

    cdef void feed(self) noexcept nogil:
        cdef int place
        if self.ballot == BALLOT_NONE:
            return
        for place in range(self.peers.count):
            if (place != self.peers.own or self.streams_to_self) and not self.peers.items[place].is_quarantined:
                self._feed_one(place)

    cdef void _open(self, int place) noexcept nogil:
        """Open the member's stream at chosen_upto + 1, so that all it will acknowledge above is of this ballot."""
        cdef Stream *stream = &self.streams[place]
        cdef Outgoing outgoing
        stream.is_open = True
        stream.start = self.chosen_upto + 1
        stream.next = stream.start
        stream.open_unanswered = True
        stream.silent_rounds = 0
        stream.acked_bytes = self.chosen_running_bytes
        stream.sent_bytes = self.chosen_running_bytes
        outgoing.header = self.peers.header(OPEN, self.peers.items[place].node_id)
        outgoing.header.ballot = self.ballot
        outgoing.header.slot = stream.start
        outgoing.header.mark = self.chosen_upto
        outgoing.payload = NULL
        header_seal(&outgoing.header, NULL, 0)
        self.ready.add_now(&outgoing)

    cdef void _rewind(self, Stream *stream, uint64_t slot) noexcept nogil:
        """Send again from `slot` on."""
        cdef const Slot *before = self.slots.get(slot - 1)
        stream.next = slot
        stream.sent_bytes = stream.acked_bytes
        if before != NULL and before.ballot == self.ballot and before.running_bytes > stream.acked_bytes:
            stream.sent_bytes = before.running_bytes

    cdef void _feed_one(self, int place) noexcept nogil:
        cdef Stream *stream = &self.streams[place]
        cdef Outgoing outgoing
        cdef const Slot *entry
        if not stream.is_open:
            self._open(place)
        while stream.next < self.next_slot:
            if stream.next - stream.start > 2 * self.window_slots and (
                stream.next > stream.acked + 2 * self.window_slots
            ):
                return
            if stream.sent_bytes > stream.acked_bytes + 2 * self.window_bytes:
                return
            entry = self.slots.get(stream.next)
            if entry == NULL or entry.ballot != self.ballot:
                # Let go, or learned as chosen from elsewhere: skip what is chosen, the member fetches it.
                if stream.next <= self.chosen_upto:
                    self._open(place)
                    continue
                return
            outgoing.header = self.peers.header(ACCEPT, self.peers.items[place].node_id)
            outgoing.header.ballot = self.ballot
            outgoing.header.slot = stream.next
            outgoing.header.mark = self.chosen_upto
            outgoing.header.detail = entry.kind
            outgoing.payload = buffer_retain(entry.value)
            header_seal(&outgoing.header, entry.value, entry.value_crc)
            self.ready.add_now(&outgoing)
            stream.mark_sent = self.chosen_upto
            stream.sent_bytes = entry.running_bytes
            stream.next += 1

    cdef void on_chosen(self, uint64_t chosen_upto) noexcept nogil:
        cdef const Slot *entry
        if self.ballot == BALLOT_NONE or chosen_upto <= self.chosen_upto:
            return
        self.chosen_upto = chosen_upto
        entry = self.slots.get(chosen_upto)
        if entry != NULL and self.chosen_running_bytes < entry.running_bytes <= self.running_bytes:
            self.chosen_running_bytes = entry.running_bytes
        if chosen_upto + 1 >= self.next_slot:
            self.chosen_running_bytes = self.running_bytes      # nothing is under way: the window is empty
        if self.barrier_slot and self.barrier_slot <= chosen_upto:
            self.barrier_slot = 0

    cdef void on_accepted(self, int place, uint64_t upto) noexcept nogil:
        cdef Stream *stream = &self.streams[place]
        cdef const Slot *entry
        if upto >= self.next_slot:
            return      # more than was ever proposed at this ballot: not an answer to us
        stream.open_unanswered = False
        if upto > stream.acked:
            stream.acked = upto
            stream.silent_rounds = 0
            entry = self.slots.get(upto)
            if entry != NULL and entry.ballot == self.ballot and entry.running_bytes > stream.acked_bytes:
                stream.acked_bytes = entry.running_bytes
            if stream.next <= upto:
                self._rewind(stream, upto + 1)
            if stream.next == upto + 1:
                # All that was sent has arrived. The entry at `upto` may be let go already and not tell its count.
                stream.acked_bytes = stream.sent_bytes

    cdef void on_pong(self, int place, const PongPayload *pong) noexcept nogil:
        """Send again what two rounds left unanswered, with Open if the member's stream is not of this ballot."""
        cdef Stream *stream = &self.streams[place]
        if self.ballot == BALLOT_NONE or place == self.peers.own or not stream.is_open:
            return
        if pong.stream_ballot == self.ballot and stream.next <= pong.stream_upto + 1:
            stream.silent_rounds = 0
            return
        if stream.acked > stream.acked_before:
            stream.acked_before = stream.acked
            stream.silent_rounds = 0
            return
        stream.silent_rounds += 1
        if stream.silent_rounds < SILENT_ROUNDS_MAX:
            return
        stream.silent_rounds = 0
        if pong.stream_ballot == self.ballot and pong.stream_start == stream.start:
            self._rewind(stream, pong.stream_upto + 1)
        else:
            self._open(place)
        self._feed_one(place)

    cdef void on_nack(self, int place, const FrameHeader *header) noexcept nogil:
        """Heed a Nack of the present ballot: never an acknowledgement, only a reason to send again."""
        cdef Stream *stream = &self.streams[place]
        if self.ballot == BALLOT_NONE or header.ballot != self.ballot or place == self.peers.own:
            return
        if header.detail == NACK_GAP:
            if header.slot < stream.start or header.slot >= stream.next:
                return
            self._rewind(stream, header.slot)
            self._feed_one(place)
        elif header.detail == NACK_STREAM and stream.is_open and not stream.open_unanswered:
            # One Nack comes for every Accept that was under way; one Open answers them all.
            self._open(place)
            self._feed_one(place)

    cdef void announce(self) noexcept nogil:
        cdef int place
        cdef Stream *stream
        cdef Outgoing outgoing
        if self.ballot == BALLOT_NONE:
            return
        for place in range(self.peers.count):
            stream = &self.streams[place]
            if place == self.peers.own or not stream.is_open or stream.mark_sent >= self.chosen_upto:
                continue
            stream.mark_sent = self.chosen_upto
            outgoing.header = self.peers.header(DECIDE, self.peers.items[place].node_id)
            outgoing.header.ballot = self.ballot
            outgoing.header.mark = self.chosen_upto
            outgoing.payload = NULL
            header_seal(&outgoing.header, NULL, 0)
            self.ready.add_now(&outgoing)

    # ---- by hand -----------------------------------------------------------------------------------------

    def start_phase_2(self, ballot: int, first_slot: int) -> None:
        """Begin to propose at ``ballot`` from ``first_slot`` on, without an engine and an own acceptor around.

        Raises:
            ValueError: the ballot was led before, or is not an own one (P11).
        """
        if ballot <= self.last_led or (ballot & 0xFFFF) != self.peers.node_id:
            raise ValueError(f"ballot {ballot} is not a fresh ballot of node {self.peers.node_id}")
        if first_slot < 1:
            raise ValueError(f"slots are numbered from 1, not {first_slot}")
        self.streams_to_self = True
        self.slots.drop_below(first_slot)
        self.lead(ballot, first_slot, 0, self.sessions)

    def propose(self, kind: int, value: bytes) -> int:
        """Give ``value`` the next slot and stream it to the members; return the slot.

        Raises:
            ValueError: this proposer is in phase 1, or its window is full.
        """
        cdef Waiting waiting
        cdef Slot *entry
        cdef Buffer *copy = buffer_from_bytes(value) if value else NULL
        if not self.has_room():
            buffer_release(copy)
            raise ValueError("phase 2 has not begun, or the window is full")
        self.enqueue(kind, copy, crc32c(0, copy.data, copy.size) if copy != NULL else 0)
        if not self.take(&waiting):
            raise ValueError("an earlier value still waits")
        entry = self.slots.reach(self.next_slot)
        if entry == NULL:
            buffer_release(waiting.value)
            raise MemoryError("no memory for a slot")
        self.slots.put(entry, self.ballot, waiting.kind, waiting.value, waiting.crc)
        self.proposed(entry)
        self.feed()
        return self.next_slot - 1

    @property
    def is_leading(self) -> bool:
        """True while this proposer leads its ballot."""
        return self.ballot != BALLOT_NONE
