# Reads a whole log, oldest segment first, and decides what every bad byte means:
#
#   torn tail   a bad record beyond everything that any valid record or segment head says was synced: it and
#               all behind it, valid or not, was never reported to anyone; the log ends before it [h18]
#   damage      any other bad record. Never truncated: a bad value under a good header is handed on with its
#               length and without the value, and reading goes on; a header that cannot be trusted stops the reading with
#               EUCLEAN, because it may hide promises. A node that will never vote again (quarantine) and a tool
#               let it go on behind such damage: the sink gets a RECORD_GAP where something may be missing
#
# The reader changes nothing on disk; wal.pyx cuts the tail, inspection.py only reports.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.effects cimport Record, RecordList
from paxos._core.wal_format cimport LogState, RecordHead, SegmentHead

# Called for every valid record in log order while scanning; the record's value is borrowed. Non-zero stops.
ctypedef int (*RecordSink)(void *context, const Record *record) noexcept nogil

cdef enum DamageReason:
    DAMAGE_NONE = 0
    DAMAGE_MISSING = 1       # a segment file is gone
    DAMAGE_SHORT = 2         # a segment file is shorter than it was made
    DAMAGE_HEAD = 3          # a segment head fails its checksum or names another segment
    DAMAGE_OWNER = 4         # a segment of another node, cluster or storage
    DAMAGE_FORMAT = 5        # a segment of another format version
    DAMAGE_RECORD = 6        # a record header fails its checksum though the record had been synced

# A sink that keeps records, with references, in the RecordList that is its context; and that list as Python's views.
cdef int collect(void *context, const Record *record) noexcept nogil
cdef list take_views(RecordList *records)

cdef class LogReader:
    cdef int directory               # of the segments; owned
    cdef uint64_t oldest, newest     # segment numbers; newest 0: the log is empty
    cdef uint64_t current            # segment that the next step reads
    cdef bint more
    cdef bint keep_going             # report header damage and go on behind it instead of stopping
    cdef bint is_foreign             # a segment is not this node's, or not of this format: never gone on behind
    cdef uint8_t owner[16]
    cdef uint64_t owner_cluster
    cdef uint32_t owner_node         # 0: do not check the owner
    # The segment at hand; the newest one stays loaded after the last step.
    cdef uint8_t *image
    cdef SegmentHead head
    cdef uint32_t previous_crc
    cdef bint previous_valid
    cdef uint64_t claim              # highest position that anything read so far says was synced
    # Results.
    cdef LogState state
    cdef uint64_t end                # position at which the log ends
    cdef uint64_t written_end        # offset in the newest segment behind which all bytes are zero
    cdef bint torn                   # something was cut off at `end`
    cdef uint8_t last_kind           # of the last record; 0 if the log has none
    cdef uint64_t record_count
    cdef uint64_t damaged_values
    cdef uint64_t damaged_headers
    cdef int reason                  # DamageReason of the first header-class damage
    cdef uint64_t damage_position

    cdef int begin(self) noexcept nogil
    # Read one segment; 0 with `more` false after the newest. EUCLEAN: damage that is not a damaged value.
    cdef int step(self, RecordSink sink, void *context) noexcept nogil
    cdef int run(self, RecordSink sink, void *context) noexcept nogil

    # Forget the loaded segment; results stay.
    cdef void release(self) noexcept nogil

    cdef int _damage(self, int reason, uint64_t position) noexcept nogil
    cdef int _gap(self, uint64_t position, RecordSink sink, void *context) noexcept nogil
    cdef int _read_head(self, int fd, uint64_t number, SegmentHead *head) noexcept nogil
    cdef int _load(self, uint64_t number) noexcept nogil
    cdef int _next_end(self, uint64_t number, uint64_t *limit) noexcept nogil
    cdef int _records(self, uint64_t limit, bint newest, RecordSink sink, void *context) noexcept nogil
    cdef int _emit(self, const RecordHead *head, bint damaged, RecordSink sink, void *context) noexcept nogil
    cdef int _emit_head(self, RecordSink sink, void *context) noexcept nogil
    cdef uint64_t _claims_from(self, uint64_t offset, uint64_t limit) noexcept nogil
    cdef uint64_t _resync(self, uint64_t offset, uint64_t limit) noexcept nogil
    cdef void _find_tail(self, uint64_t offset) noexcept nogil
