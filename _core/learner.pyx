"""The learner: when is a value chosen, and what does that make of the log.

A value is chosen in a slot when a quorum accepted it at one and the same ballot (I3). A follower believes
"chosen up to k" only for slots that it accepted at that very ballot: Multi-Paxos has no log matching, and a
value accepted in the same slot at an older ballot may be another one (P9).
"""

from libc.string cimport memset

from paxos._core.ballot cimport BALLOT_CHOSEN, BALLOT_NONE
from paxos._core.buffer cimport buffer_retain
from paxos._core.codec cimport BATCH, CONFIGURATION, batch_valid
from paxos._core.effects cimport Chosen
from paxos._core.quorum cimport reached_by
from paxos._core.slots cimport SLOT_DAMAGED, Slot


cdef class LearnerCore:
    """The compiled half of :class:`paxos.Learner`.

    Args:
        peers: identity of this node and the members whose votes count.
        slots: what the node holds; shared with the roles beside it.
        ready: where effects go; shared likewise.
    """

    def __init__(self, Peers peers not None, SlotTable slots=None, Ready ready=None) -> None:
        self.peers = peers
        self.slots = SlotTable() if slots is None else slots
        self.ready = Ready() if ready is None else ready
        self.sessions = Sessions()

    cdef void on_announced(self, uint64_t ballot, uint64_t start, uint64_t upto) noexcept nogil:
        if ballot < self.stream_ballot or ballot == BALLOT_NONE:
            return
        if ballot != self.stream_ballot:
            self.stream_ballot = ballot
            self.announced = 0
        self.stream_start = start
        if upto > self.announced:
            self.announced = upto

    cdef void start_counting(self, uint64_t ballot, uint64_t first_slot) noexcept nogil:
        self.counting_ballot = ballot
        self.counting_from = first_slot
        self.counted_upto = 0
        memset(self.votes, 0, sizeof(self.votes))

    cdef bint on_accepted(self, uint16_t member, uint64_t ballot, uint64_t upto) noexcept nogil:
        cdef int place = self.peers.place(member)
        cdef uint64_t reached
        # Votes of different ballots never add up, and only members count (P10).
        if place < 0 or ballot == BALLOT_NONE or ballot != self.counting_ballot or upto <= self.votes[place]:
            return False
        self.votes[place] = upto
        reached = reached_by(self.votes, self.peers.count, self.peers.accept_size)
        if reached <= self.counted_upto:
            return False
        self.counted_upto = reached
        return True

    cdef void advance_known(self) noexcept nogil:
        cdef uint64_t slot
        cdef Slot *entry
        while True:
            slot = self.known_upto + 1
            entry = self.slots.get(slot)
            if entry == NULL or entry.ballot == BALLOT_NONE or entry.flags & SLOT_DAMAGED:
                return
            if entry.ballot == BALLOT_CHOSEN:
                pass
            elif (
                entry.ballot == self.counting_ballot and self.counting_from <= slot
                and slot <= self.counted_upto
            ):
                pass
            elif entry.ballot == self.stream_ballot and slot <= self.announced:
                pass    # accepted here at the very ballot whose leader says so; one ballot has one value a slot
            else:
                return
            self.known_upto = slot

    cdef bint advance_durable(self) noexcept nogil:
        while self.chosen_upto < self.known_upto:
            if not self._hand_on(self.chosen_upto + 1):
                return False
            self.chosen_upto += 1
        return True

    cdef bint _hand_on(self, uint64_t slot) noexcept nogil:
        cdef Slot *entry = self.slots.get(slot)
        cdef BatchHead head
        cdef Chosen chosen
        cdef int admitted
        memset(&chosen, 0, sizeof(chosen))
        chosen.slot = slot
        chosen.kind = entry.kind
        chosen.position = entry.position
        chosen.length = entry.length
        chosen.value_crc = entry.value_crc
        if entry.kind == CONFIGURATION:
            self.config_slot = slot
        elif entry.kind == BATCH and entry.value != NULL and batch_valid(
            entry.value.data, entry.value.size, &head
        ):
            # An invalid batch is invalid on every replica alike: the checksum covers the same bytes.
            admitted = self.sessions.admit(&head)
            if admitted < 0:
                return False
            chosen.origin = head.origin
            chosen.incarnation = head.incarnation
            chosen.first_ticket = head.first_ticket
            chosen.count = head.count
            if admitted:
                chosen.index = self.last_index + 1
                self.last_index += head.count
        chosen.value = buffer_retain(entry.value)
        self.ready.add_chosen(&chosen)
        return True

    cdef void start_from(self, uint64_t upto, uint64_t last_index, uint64_t config_slot) noexcept nogil:
        self.known_upto = upto
        self.chosen_upto = upto
        self.last_index = last_index
        self.config_slot = config_slot

    cdef bint has_gap(self) noexcept nogil:
        cdef Slot *entry = self.slots.get(self.known_upto + 1)
        if entry != NULL and entry.ballot != BALLOT_NONE and entry.flags & SLOT_DAMAGED:
            return True
        return self.stream_ballot != BALLOT_NONE and self.known_upto + 1 < self.stream_start

    # ---- by hand -----------------------------------------------------------------------------------------

    def expect(self, ballot: int, first_slot: int) -> None:
        """Count the votes at ``ballot`` for the slots from ``first_slot`` on, and no others."""
        self.start_counting(ballot, first_slot)

    def vote(self, member: int, ballot: int, upto: int) -> bool:
        """Count that ``member`` durably accepted every slot up to ``upto`` at ``ballot``.

        Returns:
            True if more slots are chosen by it; :attr:`counted_upto` says up to which.
        """
        return self.on_accepted(member, ballot, upto)
