# What this node holds of each Paxos instance, as a window over the log: a ring from `base` to `top`. Slots
# below `base` were chosen, handed on and let go; the log on disk still has them. An entry with ballot 0 is
# a hole: nothing accepted. Only the engine's thread touches the table.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer

cdef enum:
    SLOTS_HELD_MAX = 1 << 22   # entries in one table, so that a hostile slot number cannot eat the memory
    SLOT_DAMAGED = 1

cdef struct Slot:
    uint64_t ballot        # accepted at; BALLOT_CHOSEN: learned as chosen; 0: hole
    uint64_t position      # where the value lies in the log; 0 until it is appended
    uint64_t running_bytes # leader only: bytes of values proposed at its ballot up to and with this slot
    Buffer *value          # one reference; NULL for an empty value, a hole, or a damaged slot
    uint32_t length
    uint32_t value_crc
    uint8_t kind           # ValueKind
    uint8_t flags          # SLOT_DAMAGED: the record's header is good and its value is not

cdef class SlotTable:
    cdef Slot *ring
    cdef uint64_t capacity         # power of two
    cdef readonly uint64_t base    # first slot that is held
    cdef readonly uint64_t top     # highest slot ever touched; base - 1 if none
    cdef readonly uint64_t held_bytes

    # The entry of a slot within base .. top, else NULL.
    cdef Slot *get(self, uint64_t slot) noexcept nogil
    # The entry of a slot >= base, growing the table; NULL when the slot is too far away or memory is out.
    cdef Slot *reach(self, uint64_t slot) noexcept nogil
    # Replace what the slot holds; takes the reference of `value`.
    cdef void put(self, Slot *entry, uint64_t ballot, uint8_t kind, Buffer *value, uint32_t crc) noexcept nogil
    cdef void drop_below(self, uint64_t slot) noexcept nogil
