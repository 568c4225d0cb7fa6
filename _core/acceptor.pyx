"""The acceptor: promises, accepts, reports (Lamport, *Paxos Made Simple*, section 2.2).

The rules, for the whole log at once:

* P1a: it answers a Prepare(b) iff it has promised nothing above b, and then promises b.
* P1b/P2: it accepts (b, slot, value) iff it has promised nothing above b; accepting promises b as well.
* A promise reports, for every slot asked for, the value accepted at the highest ballot.
* What it says is durable before it says it (I6).

One leader's values are taken strictly in slot order, so that ``Accepted(b, upto)`` is one number.
"""

from libc.string cimport memcpy, memset

from paxos._core.ballot cimport BALLOT_CHOSEN, BALLOT_NONE
from paxos._core.buffer cimport buffer_from_bytes, buffer_new, buffer_release, buffer_retain
from paxos._core.codec cimport (
    ACCEPT, ACCEPT_REF, ACCEPTED, ENTRY_DAMAGED, FETCH, FETCH_DAMAGED, FETCH_OK, FETCH_REPLACED, FETCH_TRIMMED,
    FETCHED, HEADER_BYTES, NACK, NACK_GAP, NACK_HAPPY, NACK_PROMISED, NACK_REMOVED, NACK_STREAM, OPEN, PREPARE,
    PROMISE, TRANSFER, PromiseEntry, PromiseHead, header_seal, header_valid,
)
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport (
    Outgoing, RECORD_ACCEPT, RECORD_CHOSEN, RECORD_INCARNATION, RECORD_MARK, RECORD_PROMISE, RECORD_QUARANTINE,
    RECORD_TRIM,
)
from paxos._core.slots cimport SLOT_DAMAGED


cdef class AcceptorCore:
    """The compiled half of :class:`paxos.Acceptor`.

    Args:
        peers: identity of this node and the members.
        slots: what the node holds; shared with the roles beside it.
        ready: where effects go; shared likewise.
        page_entries: reported slots in one page of a promise.
        unchosen_bytes_max: bytes accepted and not known to be chosen before the acceptor waits.
    """

    def __init__(
        self,
        Peers peers not None,
        SlotTable slots=None,
        Ready ready=None,
        *,
        page_entries: int = 1024,
        unchosen_bytes_max: int = 64 << 20,
    ) -> None:
        self.peers = peers
        self.slots = SlotTable() if slots is None else slots
        self.ready = Ready() if ready is None else ready
        self.page_entries = page_entries
        self.unchosen_bytes_max = unchosen_bytes_max

    # ---- phase 1 -----------------------------------------------------------------------------------------

    cdef bint on_prepare(self, const FrameHeader *header, bint is_happy) noexcept nogil:
        cdef uint64_t ballot = header.ballot
        cdef bint may_pass
        if self.is_quarantined:
            return False
        may_pass = (
            header.sender == self.transfer_heir and self.transfer_ballot != BALLOT_NONE
            and self.promised <= self.transfer_ballot
        )
        if is_happy and not may_pass and ballot != self.promised:
            self.nack(ballot, header.sender, NACK_HAPPY, 0)
            return False
        if self.peers.place(header.sender) < 0:
            # Not a member of the newest configuration known here. Only if the sender's is older is it told so.
            if header.mark < self.peers.config_slot:
                self.nack(ballot, header.sender, NACK_REMOVED, self.peers.config_slot)
            return False
        if ballot < self.promised:
            self.nack(ballot, header.sender, NACK_PROMISED, 0)
            return False
        may_pass = ballot > self.promised
        if may_pass:
            self.raise_promise(ballot)
        self.report(ballot, header.slot, header.sender)
        return may_pass

    cdef void raise_promise(self, uint64_t ballot) noexcept nogil:
        # A record of its own, before anything at that ballot [h7].
        cdef Record record
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_PROMISE
        record.group = self.peers.group
        record.ballot = ballot
        record.mark = self.mark
        self.promised = ballot
        self.ready.add_record(&record)

    cdef void report(self, uint64_t ballot, uint64_t first_slot, uint16_t receiver) noexcept nogil:
        """Send Promise(ballot): every slot held from first_slot on, in pages that are built in one step [h2].

        Slots up to chosen_upto need no entry: the page says that they are chosen, and the candidate will
        catch up to there before it proposes anything (protocol, rule K).
        """
        cdef uint64_t first = first_slot
        cdef uint64_t slot
        cdef uint32_t total = 0, pages, page, in_page = 0
        cdef Slot *entry
        cdef FrameHeader reply = self.peers.header(PROMISE, receiver)
        if first <= self.chosen_upto:
            first = self.chosen_upto + 1
        if first < self.slots.base:
            first = self.slots.base
        reply.ballot = ballot
        reply.slot = first_slot
        reply.mark = self.chosen_upto
        self.reports += 1
        for slot in range(first, self.slots.top + 1):
            entry = self.slots.get(slot)
            if entry.ballot != BALLOT_NONE or entry.flags & SLOT_DAMAGED:
                total += 1
        pages = (total + self.page_entries - 1) // self.page_entries
        if pages == 0:
            pages = 1
        page = 0
        slot = first
        while page < pages:
            # `first` of this page is `slot`; count how far it reaches.
            in_page = total - page * self.page_entries
            if in_page > self.page_entries:
                in_page = self.page_entries
            self._send_page(&reply, slot, in_page, page, pages)
            while in_page > 0:
                entry = self.slots.get(slot)
                if entry.ballot != BALLOT_NONE or entry.flags & SLOT_DAMAGED:
                    in_page -= 1
                slot += 1
            page += 1

    cdef void _send_page(
        self, const FrameHeader *reply, uint64_t first, uint32_t count, uint32_t page, uint32_t pages
    ) noexcept nogil:
        cdef Outgoing outgoing
        cdef PromiseHead head
        cdef PromiseEntry item
        cdef Slot *entry
        cdef uint64_t slot = first
        cdef uint32_t written = 0
        cdef Buffer *payload = buffer_new(sizeof(PromiseHead) + count * sizeof(PromiseEntry))
        if payload == NULL:
            self.ready.out_of_memory = True
            return
        memset(&head, 0, sizeof(head))
        head.trimmed = self.trimmed
        head.config_slot = self.peers.config_slot
        head.page = page
        head.pages = pages
        head.count = count
        head.report = self.reports
        memcpy(head.storage, self.peers.storage, 16)
        memcpy(payload.data, &head, sizeof(head))
        while written < count:
            entry = self.slots.get(slot)
            if entry.ballot != BALLOT_NONE or entry.flags & SLOT_DAMAGED:
                memset(&item, 0, sizeof(item))
                item.slot = slot
                item.ballot = entry.ballot
                item.length = entry.length
                item.crc = entry.value_crc
                item.kind = entry.kind
                item.flags = ENTRY_DAMAGED if entry.flags & SLOT_DAMAGED else 0
                memcpy(payload.data + sizeof(head) + written * sizeof(item), &item, sizeof(item))
                written += 1
            slot += 1
        outgoing.header = reply[0]
        outgoing.header.detail = <uint16_t>page
        outgoing.payload = payload
        header_seal(&outgoing.header, payload, crc32c(0, payload.data, payload.size))
        self.ready.add_after_sync(&outgoing)

    # ---- phase 2 -----------------------------------------------------------------------------------------

    cdef bint on_open(self, const FrameHeader *header) noexcept nogil:
        cdef bint rises = header.ballot > self.promised
        if self.is_quarantined:
            return False
        if header.ballot < self.promised:
            self.nack(header.ballot, header.sender, NACK_PROMISED, 0)
            return False
        if header.slot == 0:
            return False
        if rises:
            self.raise_promise(header.ballot)
        if self.stream_ballot != header.ballot or self.stream_start != header.slot:
            self.stream_ballot = header.ballot
            self.stream_start = header.slot
            self.stream_next = header.slot
            self.gap_answered = 0
        self.ack_due = True
        return rises

    cdef void on_accept(self, const FrameHeader *header, Buffer *payload) noexcept nogil:
        if self.is_quarantined:
            return
        if header.ballot < self.promised:
            self.nack(header.ballot, header.sender, NACK_PROMISED, 0)
            return
        if header.ballot != self.stream_ballot:
            self.nack(header.ballot, header.sender, NACK_STREAM, self.chosen_upto + 1)
            return
        if header.slot > self.stream_next:
            if self.gap_answered != self.stream_next:
                self.gap_answered = self.stream_next
                self.nack(header.ballot, header.sender, NACK_GAP, self.stream_next)
            return
        if header.slot < self.stream_next:
            self.ack_due = True    # a duplicate: the Accepted may have been lost [h17]
            return
        if self._accept_next(<uint8_t>header.detail, payload, header.payload_crc):
            self.ack_due = True

    cdef void on_accept_ref(self, const FrameHeader *header) noexcept nogil:
        """Accept the value that this acceptor accepted at ballot ``mark``: one ballot has one value a slot (I1)."""
        cdef Slot *entry
        if self.is_quarantined:
            return
        if header.ballot < self.promised:
            self.nack(header.ballot, header.sender, NACK_PROMISED, 0)
            return
        if header.ballot != self.stream_ballot:
            self.nack(header.ballot, header.sender, NACK_STREAM, self.chosen_upto + 1)
            return
        if header.slot < self.stream_next:
            self.ack_due = True
            return
        entry = self.slots.get(header.slot)
        if (
            header.slot > self.stream_next or entry == NULL or header.mark == BALLOT_NONE
            or entry.ballot != header.mark or entry.flags & SLOT_DAMAGED
        ):
            self.nack(header.ballot, header.sender, NACK_GAP, self.stream_next)
            return
        if self._accept_next(entry.kind, entry.value, entry.value_crc):
            self.ack_due = True

    cdef bint _accept_next(self, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil:
        """Take `stream_next`; False when there is no room. Borrows `value`."""
        cdef uint64_t slot = self.stream_next
        cdef Slot *entry
        cdef bint differs
        if slot <= self.trimmed or slot < self.slots.base:
            self.stream_next = slot + 1      # chosen and let go here long ago: counted, not stored again
            return True
        entry = self.slots.reach(slot)
        if entry == NULL or (self.slots.held_bytes > self.unchosen_bytes_max and slot > self.chosen_upto + 1):
            self.refused += 1
            self.waits_for_room = slot
            return False
        differs = entry.value_crc != crc or entry.length != (value.size if value != NULL else 0)
        if differs and entry.ballot == BALLOT_CHOSEN:
            # An older leader that does not know yet: the slot was learned as chosen at a ballot above this
            # one, which this node may not have promised. No quorum is left for the older value.
            self.refused += 1
            return False
        if differs and slot <= self.mark and entry.ballot != BALLOT_NONE:
            self.contradiction = slot
            return False
        if entry.ballot != BALLOT_CHOSEN or entry.flags & SLOT_DAMAGED:
            self.slots.put(entry, self.stream_ballot, kind, buffer_retain(value), crc)
            self._append(slot, self.stream_ballot, kind, value, crc)
        self.stream_next = slot + 1
        self.gap_answered = 0
        return True

    cdef void _append(self, uint64_t slot, uint64_t ballot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil:
        cdef Record record
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_CHOSEN if ballot == BALLOT_CHOSEN else RECORD_ACCEPT
        record.value_kind = kind
        record.group = self.peers.group
        record.slot = slot
        record.ballot = ballot
        record.mark = self.mark
        record.value_crc = crc
        record.length = <uint32_t>value.size if value != NULL else 0
        record.value = buffer_retain(value)
        self.ready.add_record(&record)

    cdef void open_own(self, uint64_t ballot, uint64_t start) noexcept nogil:
        self.stream_ballot = ballot
        self.stream_start = start
        self.stream_next = start
        self.gap_answered = 0
        self.ack_due = False

    cdef Slot *accept_own(self, uint64_t slot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil:
        cdef Slot *entry = self.slots.reach(slot)
        if entry == NULL or slot != self.stream_next:
            buffer_release(value)
            return NULL
        if entry.ballot != BALLOT_CHOSEN or entry.flags & SLOT_DAMAGED:
            self._append(slot, self.stream_ballot, kind, value, crc)
            self.slots.put(entry, self.stream_ballot, kind, value, crc)
        else:
            buffer_release(value)
        self.stream_next = slot + 1
        return entry

    cdef bint record_chosen(self, uint64_t slot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil:
        cdef uint64_t running_bytes
        cdef Slot *entry = self.slots.reach(slot)
        if entry == NULL:
            return False
        if entry.ballot == BALLOT_CHOSEN and not entry.flags & SLOT_DAMAGED:
            return True
        running_bytes = entry.running_bytes
        self.slots.put(entry, BALLOT_CHOSEN, kind, buffer_retain(value), crc)
        entry.running_bytes = running_bytes     # a leader's window counts on it
        self._append(slot, BALLOT_CHOSEN, kind, value, crc)
        return True

    cdef void trim(self, uint64_t upto) noexcept nogil:
        cdef Record record
        memset(&record, 0, sizeof(record))
        record.kind = RECORD_TRIM
        record.group = self.peers.group
        record.slot = upto
        record.mark = self.mark
        self.trimmed = upto
        self.slots.drop_below(upto + 1)
        self.ready.add_record(&record)

    # ---- answers -----------------------------------------------------------------------------------------

    cdef void nack(self, uint64_t ballot, uint16_t receiver, uint16_t reason, uint64_t expected) noexcept nogil:
        cdef Outgoing outgoing
        outgoing.header = self.peers.header(NACK, receiver)
        outgoing.header.ballot = ballot
        outgoing.header.detail = reason
        outgoing.header.slot = expected
        outgoing.header.mark = self.promised
        outgoing.payload = NULL
        header_seal(&outgoing.header, NULL, 0)
        self.ready.add_after_sync(&outgoing)    # it may name a promise that is not durable yet

    cdef void on_fetch(self, const FrameHeader *header) noexcept nogil:
        cdef Outgoing outgoing
        cdef Slot *entry = self.slots.get(header.slot)
        cdef uint16_t status = FETCH_OK
        outgoing.header = self.peers.header(FETCHED, header.sender)
        outgoing.header.slot = header.slot
        outgoing.header.ballot = header.ballot
        outgoing.header.mark = self.trimmed
        outgoing.payload = NULL
        if header.slot <= self.trimmed:
            status = FETCH_TRIMMED
        elif entry != NULL and entry.flags & SLOT_DAMAGED:
            status = FETCH_DAMAGED
        elif entry == NULL or entry.ballot == BALLOT_NONE or (
            entry.ballot != header.ballot and entry.ballot != BALLOT_CHOSEN
        ):
            status = FETCH_REPLACED
        outgoing.header.detail = status << 8
        if status == FETCH_OK:
            outgoing.header.detail |= entry.kind
            if entry.ballot == BALLOT_CHOSEN:
                outgoing.header.ballot = BALLOT_CHOSEN
            outgoing.payload = buffer_retain(entry.value)
        header_seal(&outgoing.header, outgoing.payload, entry.value_crc if status == FETCH_OK else 0)
        self.ready.add_after_sync(&outgoing)

    cdef void on_transfer(self, const FrameHeader *header) noexcept nogil:
        self.transfer_ballot = header.ballot
        self.transfer_heir = <uint16_t>header.slot

    cdef void advance(self) noexcept nogil:
        cdef Outgoing outgoing
        self.promised_durable = self.promised
        self.durable_ballot = self.stream_ballot
        self.durable_start = self.stream_start
        self.durable_upto = self.stream_next - 1 if self.stream_next else 0
        if self.waits_for_room and not self.is_quarantined and (
            self.waits_for_room <= self.chosen_upto + 1 or self.slots.held_bytes <= self.unchosen_bytes_max
        ):
            # There is room again: ask for what was refused, rather than wait for the leader's patience to end.
            if self.waits_for_room == self.stream_next and self.stream_ballot == self.promised:
                self.nack(self.stream_ballot, <uint16_t>(self.stream_ballot & 0xFFFF), NACK_GAP, self.stream_next)
            self.waits_for_room = 0
        if not self.ack_due:
            return
        self.ack_due = False
        outgoing.header = self.peers.header(ACCEPTED, <uint16_t>(self.stream_ballot & 0xFFFF))
        outgoing.header.ballot = self.durable_ballot
        outgoing.header.slot = self.durable_upto
        outgoing.header.mark = self.chosen_upto
        outgoing.payload = NULL
        header_seal(&outgoing.header, NULL, 0)
        self.ready.add_after_sync(&outgoing)

    # ---- restart -----------------------------------------------------------------------------------------

    cdef void recover(self, const Record *record) noexcept nogil:
        cdef Slot *entry
        cdef bint is_damaged = record.value == NULL and record.length != 0
        if record.kind in (RECORD_PROMISE, RECORD_MARK, RECORD_ACCEPT):
            if record.ballot > self.promised:
                self.promised = record.ballot
                self.promised_durable = record.ballot
        if record.kind == RECORD_TRIM or record.kind == RECORD_MARK:
            if record.slot > self.trimmed:
                self.trimmed = record.slot
        if record.kind == RECORD_QUARANTINE:
            self.is_quarantined = True
            self.quarantine_reason = self.quarantine_reason or <int>record.slot
        if record.kind != RECORD_ACCEPT and record.kind != RECORD_CHOSEN:
            return
        if record.slot <= self.trimmed or record.slot < self.slots.base:
            return
        entry = self.slots.reach(record.slot)
        if entry == NULL:
            self.ready.out_of_memory = True
            return
        if entry.ballot == BALLOT_CHOSEN and not entry.flags & SLOT_DAMAGED and record.kind != RECORD_CHOSEN:
            return
        self.slots.put(
            entry,
            BALLOT_CHOSEN if record.kind == RECORD_CHOSEN else record.ballot,
            record.value_kind,
            buffer_retain(record.value),
            record.value_crc,
        )
        entry.position = record.position
        if is_damaged:
            entry.flags = SLOT_DAMAGED      # its header is good, its value is not; no older record stands in

    # ---- by hand -----------------------------------------------------------------------------------------

    def step(self, const uint8_t[::1] frame not None, is_happy: bool = False) -> None:
        """Take one frame that concerns an acceptor, as the engine would pass it on.

        Raises:
            ValueError: no frame, or of a kind that no acceptor answers.
        """
        cdef FrameHeader header
        cdef Buffer *payload = NULL
        if frame.shape[0] < HEADER_BYTES or not header_valid(&frame[0], HEADER_BYTES):
            raise ValueError(f"{frame.shape[0]} bytes that do not start with a valid frame header")
        memcpy(&header, &frame[0], HEADER_BYTES)
        if header.kind not in (PREPARE, OPEN, ACCEPT, ACCEPT_REF, FETCH, TRANSFER):
            raise ValueError(f"a frame of kind {header.kind} is not for an acceptor")
        if frame.shape[0] > HEADER_BYTES:
            payload = buffer_from_bytes(frame[HEADER_BYTES:])
        if header.kind == PREPARE:
            self.on_prepare(&header, is_happy)
        elif header.kind == OPEN:
            self.on_open(&header)
        elif header.kind == ACCEPT:
            self.on_accept(&header, payload)
        elif header.kind == ACCEPT_REF:
            self.on_accept_ref(&header)
        elif header.kind == FETCH:
            self.on_fetch(&header)
        else:
            self.on_transfer(&header)
        buffer_release(payload)

    def durable(self) -> None:
        """Say that every record in ``ready`` is durable: what waited for the disk may leave now."""
        self.ready.clear_records()
        self.advance()

    def quarantine(self) -> None:
        """Stop voting for good: promises or identity may have been lost [h5]."""
        self.is_quarantined = True
