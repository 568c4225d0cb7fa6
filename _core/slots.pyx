"""A window over the log: what this node accepted, slot by slot."""

cimport cython
from libc.stdlib cimport calloc, free

from paxos._core.buffer cimport buffer_bytes, buffer_release


@cython.final
cdef class SlotTable:
    """The accepted values of one node, from ``base`` to ``top``."""

    def __cinit__(self):
        self.capacity = 256
        self.ring = <Slot *>calloc(self.capacity, sizeof(Slot))
        if self.ring == NULL:
            raise MemoryError("no memory for the table of slots")
        self.base = 1
        self.top = 0
        self.held_bytes = 0

    def __dealloc__(self):
        cdef uint64_t i
        if self.ring != NULL:
            for i in range(self.capacity):
                buffer_release(self.ring[i].value)
            free(self.ring)

    cdef Slot *get(self, uint64_t slot) noexcept nogil:
        if slot < self.base or slot > self.top:
            return NULL
        return &self.ring[slot & (self.capacity - 1)]

    cdef Slot *reach(self, uint64_t slot) noexcept nogil:
        cdef uint64_t larger, i
        cdef Slot *grown
        if slot < self.base or slot - self.base >= SLOTS_HELD_MAX:
            return NULL
        if slot - self.base >= self.capacity:
            larger = self.capacity
            while slot - self.base >= larger:
                larger *= 2
            grown = <Slot *>calloc(larger, sizeof(Slot))
            if grown == NULL:
                return NULL
            for i in range(self.base, self.top + 1):
                grown[i & (larger - 1)] = self.ring[i & (self.capacity - 1)]
            free(self.ring)
            self.ring = grown
            self.capacity = larger
        if slot > self.top:
            self.top = slot
        return &self.ring[slot & (self.capacity - 1)]

    cdef void put(self, Slot *entry, uint64_t ballot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil:
        self.held_bytes -= entry.length if entry.value != NULL else 0
        buffer_release(entry.value)
        entry.ballot = ballot
        entry.kind = kind
        entry.value = value
        entry.length = <uint32_t>value.size if value != NULL else 0
        entry.value_crc = crc
        entry.position = 0
        entry.running_bytes = 0
        entry.flags = 0
        self.held_bytes += entry.length

    cdef void drop_below(self, uint64_t slot) noexcept nogil:
        cdef Slot *entry
        while self.base < slot:
            if self.base > self.top:
                self.base = slot    # nothing is held beyond
                break
            entry = &self.ring[self.base & (self.capacity - 1)]
            self.put(entry, 0, 0, NULL, 0)
            self.base += 1
        if self.top < self.base - 1:
            self.top = self.base - 1

    def held(self) -> dict[int, tuple[int, int, bytes | None]]:
        """Return ``{slot: (ballot, kind, value)}`` of every slot that is held, holes left out."""
        cdef uint64_t slot
        cdef Slot *entry
        out = {}
        for slot in range(self.base, self.top + 1):
            entry = self.get(slot)
            if entry.ballot != 0:
                out[slot] = (
                    entry.ballot, entry.kind, buffer_bytes(entry.value) if entry.value != NULL else None
                )
        return out

    def damaged(self) -> list[int]:
        """Return the slots whose value is not what was written, ascending: they wait for it from a peer."""
        cdef uint64_t slot
        return [slot for slot in range(self.base, self.top + 1) if self.get(slot).flags & SLOT_DAMAGED]
