# What lies in a segment of the write-ahead log; docs call this "the log format". All integers are
# little-endian. A segment is one file `<sixteen hex digits of its number>.segment`: a head in the first 512
# bytes, then records, each aligned to 8 bytes. A position is `segment << 32 | offset`.
#
# A record is valid by its own checksum alone, which covers where it lies and the random generation of the
# segment's present use: an old record in a recycled segment, a misdirected write or bytes that an application
# made up are never taken for a record. `previous_crc` is a stored, covered field: it is compared only where the
# predecessor is valid, so rot in one record does not invalidate those behind it [h16].

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    WAL_FORMAT = 1
    SEGMENT_HEAD_BYTES = 512         # one sector: written whole, before the segment gets its name
    RECORD_HEAD_BYTES = 72
    VALUE_BYTES_MAX = 1 << 28        # no length above this is ever believed
    SEGMENT_RECYCLED = 1             # flag: bytes of an earlier use may lie behind the end of the log

    # The log's own kinds; the roles never see them.
    RECORD_RECYCLED = 64             # segments below `slot` may be gone
    RECORD_NEXT = 65                 # segment `slot` exists; the last record of a segment, behind its `previous_end`
    # Never on disk: what a reader that goes on hands to its sink where something unreadable lies.
    RECORD_GAP = 66

cdef extern from *:
    """
    #define PAXOS_SEGMENT_MAGIC 0x314C415753585050ull   /* "PPXSWAL1" */
    """
    const uint64_t SEGMENT_MAGIC "PAXOS_SEGMENT_MAGIC"

cdef packed struct SegmentHead:
    uint64_t magic
    uint32_t format
    uint32_t flags
    uint64_t segment                 # its own number
    uint64_t generation              # random, new at every use of the file
    uint64_t size                    # bytes of the file; a shorter file is damaged, however it came about
    uint64_t cluster
    uint64_t promised                # state of `group` when the segment was begun: what older segments
    uint64_t incarnation             # said about it stays known when they rot or are recycled [h7]
    uint64_t chosen_upto
    uint64_t trimmed
    uint64_t oldest                  # number of the oldest segment that must still exist
    uint64_t previous_end            # position at which the previous segment ends; all of it was synced
    uint8_t storage[16]
    uint32_t group
    uint32_t previous_crc            # header checksum of the last record of the previous segment
    uint16_t node_id
    uint16_t quarantine              # effects.QuarantineReason: whoever wrote this never votes again
    uint32_t crc                     # CRC-32C of the 124 bytes before it

cdef packed struct RecordHead:
    uint32_t crc                     # CRC-32C of the 68 bytes behind it
    uint8_t kind                     # RecordKind
    uint8_t value_kind
    uint16_t reserved
    uint32_t group
    uint32_t length                  # bytes of the value, which follows; padded with zeros to 8
    uint64_t slot
    uint64_t ballot
    uint64_t mark
    uint64_t position                # where this record lies
    uint64_t generation
    uint64_t synced                  # the log was durable up to this position when this was written
    uint32_t value_crc               # CRC-32C of the value
    uint32_t previous_crc            # `crc` of the record before it


cdef inline uint64_t offset_of(uint64_t position) noexcept nogil:
    """The offset within its segment that a position names."""
    return <uint32_t>position


cdef inline uint64_t record_bytes(uint64_t length) noexcept nogil:
    """Bytes that a record with a value of `length` bytes takes, padding included."""
    return RECORD_HEAD_BYTES + ((length + 7) & ~(<uint64_t>7))


# What the log as a whole says about one group; repeated in every segment head and every mark.
cdef struct LogState:
    uint64_t promised
    uint64_t incarnation
    uint64_t chosen_upto
    uint64_t trimmed
    uint64_t oldest
    uint64_t next                    # number of the segment that the last RECORD_NEXT names
    uint64_t quarantine


cdef inline void log_state_note(
    LogState *state, uint8_t kind, uint32_t group, uint64_t slot, uint64_t ballot, uint64_t mark
) noexcept nogil:
    """Take over what one record says. The kinds are those of effects.RecordKind."""
    if kind == RECORD_RECYCLED:
        state.oldest = slot if slot > state.oldest else state.oldest
        return
    if kind == RECORD_NEXT:
        state.next = slot if slot > state.next else state.next
        return
    if group != 0:
        return
    if mark > state.chosen_upto:
        state.chosen_upto = mark
    if (kind == 1 or kind == 4) and ballot > state.promised:       # RECORD_PROMISE, RECORD_MARK
        state.promised = ballot
    if (kind == 4 or kind == 6) and slot > state.trimmed:          # RECORD_MARK, RECORD_TRIM
        state.trimmed = slot
    if kind == 5 and slot > state.incarnation:                     # RECORD_INCARNATION
        state.incarnation = slot
    if kind == 7:                                                  # RECORD_QUARANTINE
        state.quarantine = slot
