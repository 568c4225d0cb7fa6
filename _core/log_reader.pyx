"""Reading the write-ahead log: every record, the torn tail, and what is damaged."""

import os
import re

from libc.errno cimport EBADMSG, ENOENT, ENOMEM
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memset

from paxos._core.buffer cimport buffer_bytes, buffer_copy, buffer_release, buffer_retain
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport RECORD_INCARNATION, RECORD_MARK, RECORD_QUARANTINE, RecordList
from paxos._core.failpoint cimport AT_WAL_SCAN, failpoint
from paxos._core.segment cimport (
    close_file, file_size, open_segment, read_bytes, record_head_valid, segment_head_valid,
)
from paxos._core.wal_format cimport (
    RECORD_GAP, RECORD_HEAD_BYTES, RECORD_NEXT, RECORD_RECYCLED, SEGMENT_HEAD_BYTES, SEGMENT_RECYCLED,
    WAL_FORMAT, log_state_note, offset_of, record_bytes,
)

from paxos._core.effects import RecordView
from paxos.errors import StorageError

cdef extern from "errno.h":
    int EUCLEAN

SEGMENT_NAME = re.compile(r"([0-9a-f]{16})\.segment")

REASONS = {
    DAMAGE_MISSING: "a segment file is missing",
    DAMAGE_SHORT: "a segment file is shorter than it was made",
    DAMAGE_HEAD: "a segment head fails its checksum",
    DAMAGE_OWNER: "a segment belongs to another node, cluster or storage",
    DAMAGE_FORMAT: "a segment was written in a format that this version does not read",
    DAMAGE_RECORD: "the header of a record that had been synced fails its checksum",
}


def segment_numbers(directory) -> list[int]:
    """Return the numbers of the segments in ``directory``, ascending."""
    found = (SEGMENT_NAME.fullmatch(name) for name in os.listdir(directory))
    return sorted(int(match[1], 16) for match in found if match)


cdef int collect(void *context, const Record *record) noexcept nogil:
    """Keep a record, and a reference to its value, in a RecordList."""
    cdef RecordList *out = <RecordList *>context
    cdef size_t larger
    cdef void *moved
    if out.count == out.capacity:
        larger = 2 * out.capacity if out.capacity else 64
        moved = realloc(out.items, larger * sizeof(Record))
        if moved == NULL:
            return ENOMEM
        out.items = <Record *>moved
        out.capacity = larger
    out.items[out.count] = record[0]
    buffer_retain(record.value)
    out.count += 1
    return 0


cdef list take_views(RecordList *records):
    cdef size_t i
    cdef Record *r
    views = []
    try:
        for i in range(records.count):
            r = &records.items[i]
            views.append(RecordView(
                r.kind, r.value_kind, r.group, r.slot, r.ballot, r.mark, r.value_crc, r.position,
                buffer_bytes(r.value) if r.value != NULL else None, r.length,
            ))
    finally:
        for i in range(records.count):
            buffer_release(records.items[i].value)
        free(records.items)
        memset(records, 0, sizeof(RecordList))
    return views


cdef class LogReader:
    """Read-only pass over the segments in ``directory``. Iterate over it for lists of ``RecordView``, one a segment.

    Args:
        directory: where the ``*.segment`` files lie.
        node_id, cluster, storage: whose log it must be; ``node_id=0`` reads anyone's.
        keep_going: after a damaged header, go on at the next valid record instead of stopping.
    """

    def __cinit__(self, directory, *, node_id: int = 0, cluster: int = 0, storage: bytes = bytes(16),
                  keep_going: bool = False):
        cdef const uint8_t *identity = storage
        self.directory = -1
        if len(storage) != 16:
            raise ValueError(f"storage must be 16 bytes, not {len(storage)}")
        numbers = segment_numbers(directory)
        self.directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.oldest = min(numbers) if numbers else 0
        self.newest = max(numbers) if numbers else 0
        self.keep_going = keep_going
        self.owner_node = node_id
        self.owner_cluster = cluster
        for i in range(16):
            self.owner[i] = identity[i]
        self.begin()

    def __dealloc__(self):
        free(self.image)
        close_file(&self.directory)

    cdef int begin(self) noexcept nogil:
        free(self.image)
        self.image = NULL
        self.current = self.oldest
        self.more = self.newest != 0
        self.previous_valid = False
        self.claim = self.end = self.written_end = 0
        self.torn = False
        self.last_kind = 0
        self.record_count = self.damaged_values = self.damaged_headers = 0
        self.reason = DAMAGE_NONE
        self.is_foreign = False
        self.damage_position = 0
        memset(&self.state, 0, sizeof(LogState))
        return 0

    cdef int run(self, RecordSink sink, void *context) noexcept nogil:
        cdef int status = self.begin()
        while status == 0 and self.more:
            status = self.step(sink, context)
        return status

    cdef void release(self) noexcept nogil:
        free(self.image)
        self.image = NULL

    cdef int _damage(self, int reason, uint64_t position) noexcept nogil:
        self.damaged_headers += 1
        self.is_foreign = self.is_foreign or reason == DAMAGE_OWNER or reason == DAMAGE_FORMAT
        if self.reason == DAMAGE_NONE:
            self.reason = reason
            self.damage_position = position
        return EUCLEAN

    cdef int _gap(self, uint64_t position, RecordSink sink, void *context) noexcept nogil:
        """Tell the sink that records may be missing here."""
        cdef Record record
        if sink == NULL:
            return 0
        memset(&record, 0, sizeof(Record))
        record.kind = RECORD_GAP
        record.position = position
        return sink(context, &record)

    cdef int _read_head(self, int fd, uint64_t number, SegmentHead *head) noexcept nogil:
        """Read and check one segment head: 0, an errno, or EUCLEAN."""
        cdef int status = read_bytes(fd, <uint8_t *>head, sizeof(SegmentHead), 0)
        if status == EBADMSG:
            return self._damage(DAMAGE_SHORT, number << 32)
        if status:
            return status
        if not segment_head_valid(head) or head.segment != number or head.size <= SEGMENT_HEAD_BYTES or (
            head.size >> 32
        ):
            return self._damage(DAMAGE_HEAD, number << 32)
        if head.format != WAL_FORMAT:
            return self._damage(DAMAGE_FORMAT, number << 32)
        if self.owner_node and (
            head.node_id != self.owner_node or head.cluster != self.owner_cluster
            or memcmp(head.storage, self.owner, 16) != 0
        ):
            return self._damage(DAMAGE_OWNER, number << 32)
        return 0

    cdef int _load(self, uint64_t number) noexcept nogil:
        cdef int fd = -1
        cdef uint64_t size = 0
        cdef int status = failpoint(AT_WAL_SCAN) or open_segment(self.directory, number, False, &fd)
        free(self.image)
        self.image = NULL
        if status == ENOENT:
            return self._damage(DAMAGE_MISSING, number << 32)
        if status:
            return status
        status = self._read_head(fd, number, &self.head)
        if status == 0:
            status = file_size(fd, &size)
        if status == 0 and size < self.head.size:
            status = self._damage(DAMAGE_SHORT, number << 32 | size)
        if status == 0:
            self.image = <uint8_t *>malloc(<size_t>self.head.size)
            status = read_bytes(fd, self.image, self.head.size, 0) if self.image != NULL else ENOMEM
        close_file(&fd)
        return status

    cdef int _next_end(self, uint64_t number, uint64_t *limit) noexcept nogil:
        """Where segment `number` ends, as its successor's head says (all of it had been synced by then)."""
        cdef SegmentHead head
        cdef int fd = -1
        cdef int status = open_segment(self.directory, number + 1, False, &fd)
        if status == ENOENT:
            return self._damage(DAMAGE_MISSING, (number + 1) << 32)
        if status:
            return status
        status = self._read_head(fd, number + 1, &head)
        close_file(&fd)
        if status:
            return status
        if head.previous_end >> 32 != number or offset_of(head.previous_end) > self.head.size:
            return self._damage(DAMAGE_HEAD, (number + 1) << 32)
        limit[0] = offset_of(head.previous_end)
        return 0

    cdef int step(self, RecordSink sink, void *context) noexcept nogil:
        cdef uint64_t number = self.current
        cdef uint64_t limit = 0
        cdef bint newest = number == self.newest
        cdef int status = self._load(number)
        cdef bint end_known = not newest
        if status == 0 and not newest:
            status = self._next_end(number, &limit)
            if status == EUCLEAN and self.keep_going:      # the next step meets and counts it again
                self.damaged_headers -= 1
                end_known = False
                status = 0
        if status == 0:
            if not end_known:
                limit = self.head.size
            if number == self.oldest:
                self.previous_crc = self.head.previous_crc
            elif self.previous_valid and self.previous_crc != self.head.previous_crc:
                status = self._damage(DAMAGE_HEAD, number << 32)
                if self.keep_going:
                    status = self._gap(number << 32, sink, context)
            if status == 0:
                self.previous_crc = self.head.previous_crc
                self.previous_valid = True
                status = self._emit_head(sink, context)
            if status == 0:
                status = self._records(limit, not end_known, sink, context)
        elif status == EUCLEAN and self.keep_going:
            self.previous_valid = False
            status = self._gap(number << 32, sink, context)
        self.current += 1
        self.more = status == 0 and not newest
        if status == 0 and newest and self.oldest > self.state.oldest:
            status = self._damage(DAMAGE_MISSING, self.state.oldest << 32)
        if (status == 0 or status == EUCLEAN) and newest and self.state.next > number:
            status = self._damage(DAMAGE_MISSING, self.state.next << 32)
        if status == 0 and newest and self.damaged_headers:
            status = EUCLEAN
        return status

    cdef int _records(self, uint64_t limit, bint open_end, RecordSink sink, void *context) noexcept nogil:
        cdef uint64_t offset = SEGMENT_HEAD_BYTES
        cdef uint64_t base = self.current << 32
        cdef const RecordHead *head
        cdef bint known = False      # the claims behind the first bad record have been looked for
        cdef bint good
        cdef int status
        while offset < limit:
            head = <const RecordHead *>(self.image + offset)
            good = record_head_valid(self.image + offset, base | offset, self.head.generation, limit - offset)
            if good and self.previous_valid and head.previous_crc != self.previous_crc:
                good = False
            if good and head.value_crc == crc32c(0, self.image + offset + RECORD_HEAD_BYTES, head.length):
                status = self._emit(head, False, sink, context)
            else:
                if open_end and not known:
                    known = True
                    self.claim = max(self.claim, self._claims_from(offset + 8, limit))
                if open_end and self.claim <= (base | offset):
                    break            # the end, or a torn tail
                if good:
                    self.damaged_values += 1
                    status = self._emit(head, True, sink, context)
                else:
                    status = self._damage(DAMAGE_RECORD, base | offset)
                    self.previous_valid = False
                    if self.keep_going:
                        status = self._gap(base | offset, sink, context)
                        if status:
                            return status
                        offset = self._resync(offset + 8, limit)
                        continue
            if status:
                return status
            self.record_count += 1
            self.last_kind = head.kind
            self.previous_crc = head.crc
            self.previous_valid = True
            offset += record_bytes(head.length)
        self.end = base | offset
        if self.current == self.newest:
            self._find_tail(offset)
        return 0

    cdef int _emit(self, const RecordHead *head, bint damaged, RecordSink sink, void *context) noexcept nogil:
        cdef Record record
        cdef int status = 0
        if head.synced > self.claim:
            self.claim = head.synced
        log_state_note(&self.state, head.kind, head.group, head.slot, head.ballot, head.mark)
        if sink == NULL or head.kind == RECORD_RECYCLED or head.kind == RECORD_NEXT:
            return 0
        record.kind = head.kind
        record.value_kind = head.value_kind
        record.group = head.group
        record.slot = head.slot
        record.ballot = head.ballot
        record.mark = head.mark
        record.value_crc = head.value_crc
        record.length = head.length
        record.position = head.position
        record.value = NULL
        if head.length and not damaged:
            record.value = buffer_copy(<const uint8_t *>head + RECORD_HEAD_BYTES, head.length)
            if record.value == NULL:
                return ENOMEM
        status = sink(context, &record)
        buffer_release(record.value)
        return status

    cdef int _emit_head(self, RecordSink sink, void *context) noexcept nogil:
        """Hand on what a segment head repeats, as the records that first said it."""
        cdef RecordHead head
        cdef int status = 0
        memset(&head, 0, sizeof(RecordHead))
        if self.head.previous_end > self.claim:
            self.claim = self.head.previous_end
        self.state.oldest = max(self.state.oldest, self.head.oldest)
        head.position = self.current << 32
        head.group = self.head.group
        head.kind = RECORD_MARK
        head.slot = self.head.trimmed
        head.ballot = self.head.promised
        head.mark = self.head.chosen_upto
        if head.slot or head.ballot or head.mark:
            status = self._emit(&head, False, sink, context)
        head.kind = RECORD_INCARNATION
        head.slot = self.head.incarnation
        head.ballot = 0
        if head.slot and status == 0:
            status = self._emit(&head, False, sink, context)
        head.kind = RECORD_QUARANTINE
        head.slot = self.head.quarantine
        if head.slot and status == 0:
            status = self._emit(&head, False, sink, context)
        return status

    cdef uint64_t _claims_from(self, uint64_t offset, uint64_t limit) noexcept nogil:
        """The highest position that any valid record at or behind `offset` says was synced."""
        cdef uint64_t claim = 0
        cdef uint64_t synced
        offset = self._resync(offset, limit)
        while offset < limit:
            synced = (<const RecordHead *>(self.image + offset)).synced
            claim = synced if synced > claim else claim
            offset = self._resync(
                offset + record_bytes((<const RecordHead *>(self.image + offset)).length), limit)
        return claim

    cdef uint64_t _resync(self, uint64_t offset, uint64_t limit) noexcept nogil:
        """Offset of the next valid record header at or behind `offset`, or `limit`."""
        cdef uint64_t base = self.current << 32
        while offset < limit:
            if record_head_valid(self.image + offset, base | offset, self.head.generation, limit - offset):
                return offset
            offset += 8
        return limit

    cdef void _find_tail(self, uint64_t offset) noexcept nogil:
        """See what lies behind the end: nothing, an earlier use of the file, or a torn tail."""
        cdef uint64_t last = self.head.size & ~(<uint64_t>7)
        cdef const RecordHead *head = <const RecordHead *>(self.image + offset)
        while last > offset and (<const uint64_t *>(self.image + last - 8))[0] == 0:     # all of it is aligned to 8
            last -= 8
        self.written_end = last
        self.torn = last > offset
        if self.torn and self.head.flags & SEGMENT_RECYCLED:
            self.torn = offset + RECORD_HEAD_BYTES <= self.head.size and (
                head.position == self.end or self._resync(offset, self.head.size) < self.head.size)

    # --- the Python face ---

    def __iter__(self):
        """Yield the records of one segment after the other; read the properties when it is exhausted."""
        cdef RecordList records
        cdef int status
        self.begin()
        while self.more:
            memset(&records, 0, sizeof(RecordList))
            with nogil:
                status = self.step(collect, &records)
            views = take_views(&records)
            yield views
            if status and status != EUCLEAN:
                raise OSError(status, os.strerror(status))
            if status:
                return

    @property
    def is_damaged(self) -> bool:
        """True if a header, a head or a file cannot be trusted; damaged values are counted apart."""
        return self.damaged_headers != 0

    @property
    def damage(self) -> str | None:
        """What is damaged and where, in words; ``None`` if nothing that may hide promises is."""
        if self.reason == DAMAGE_NONE:
            return None
        return f"{REASONS[self.reason]} (segment {self.damage_position >> 32:016x}, offset {self.damage_position & 0xFFFFFFFF})"

    def results(self) -> dict[str, object]:
        """Return what the pass found: counts, the end, the tail, and the state that the log repeats."""
        return {
            "oldest_segment": self.oldest, "newest_segment": self.newest, "end": self.end,
            "synced_claim": self.claim, "torn": bool(self.torn), "written_end": self.written_end,
            "records": self.record_count, "damaged_values": self.damaged_values,
            "damaged_headers": self.damaged_headers, "damage": self.damage,
            "damage_position": self.damage_position, "promised": self.state.promised,
            "incarnation": self.state.incarnation, "chosen_upto": self.state.chosen_upto,
            "trimmed": self.state.trimmed, "quarantine": self.state.quarantine,
            "is_foreign": bool(self.is_foreign),
        }
