"""The write-ahead log of one node: what is durable, and nothing else is ever reported."""

import os

cimport cython

from libc.errno cimport EINVAL, EIO, ENOSPC
from libc.stdint cimport int64_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from paxos._core.effects cimport RECORD_MARK
from paxos._core.failpoint cimport (
    AT_RECYCLE_BEFORE, AT_RECYCLE_DIRECTORY, AT_SEGMENT_BEGIN, AT_SEGMENT_BEGUN, AT_SEGMENT_DIRECTORY, AT_SEGMENT_HEAD,
    AT_SEGMENT_RENAME, AT_WAL_APPEND_AFTER, AT_WAL_APPEND_BEFORE, AT_WAL_MARK, AT_WAL_SYNC_AFTER,
    AT_WAL_SYNC_BEFORE, AT_WAL_TAIL_AFTER, AT_WAL_TAIL_BEFORE, AT_WAL_TAIL_WRITTEN, failpoint,
)
from paxos._core.segment cimport (
    NAME_BYTES, ReadyFile, close_file, open_segment, random_bytes, ready_name, record_head_seal, rename_file,
    segment_head_seal, segment_name, sync_all, sync_data, write_parts, write_zeros,
)
from paxos._core.value_reader cimport ValueReader
from paxos._core.wal_format cimport (
    RECORD_HEAD_BYTES, RECORD_NEXT, RECORD_RECYCLED, SEGMENT_HEAD_BYTES, SEGMENT_RECYCLED, VALUE_BYTES_MAX,
    log_state_note, offset_of, record_bytes,
)

from paxos._core.log_reader import LogReader
from paxos.errors import ConfigError, StorageError

cdef extern from "errno.h":
    int EUCLEAN

cdef enum:
    FIRST_SEGMENT_BYTES = 4 << 20    # a new log starts small and doubles up to `segment_bytes`
    SEGMENT_BYTES_MAX = 1 << 30      # of a segment that is made for one append
    RETRY_US = 1_000_000

cdef const char *ZEROS = b"\0\0\0\0\0\0\0\0"


@cython.no_gc_clear      # the pool must outlive the directory that its thread writes to
cdef class Wal:
    """Segments of one node under ``directory``. See ``_core/wal.pxd`` for the native contract; ``wal_face.WalFace``
    is the same with methods for Python.

    Args:
        directory: the node's data directory; the segments lie in ``log/`` below it.
        node_id, cluster, storage: stamped on every segment and checked on every scan; ``storage`` has 16 bytes.
        segment_bytes: size of a segment once the log has grown, at least 4096. A larger record gets a segment of its own.
        idle_mark_ms: an idle log writes one mark after this long.
        create: make an empty log where there is none.
        through_damage: read on behind damage that may hide promises. Only for a node that never votes again: if there
            is such damage, nothing can be appended before ``begin_behind`` says so in the log.

    Raises:
        StorageError: there is no log and ``create`` is false, or it cannot be opened.
    """

    def __cinit__(self):
        self.directory = self.fd = -1
        self.pid = getpid()
        self.pool = SegmentPool()
        self.values = ValueReader()
        self.heads = <RecordHead *>malloc(STAGED_MAX * sizeof(RecordHead))
        self.parts = <iovec *>malloc(3 * STAGED_MAX * sizeof(iovec))
        if self.heads == NULL or self.parts == NULL:
            raise MemoryError("no memory for the write-ahead log")

    def __dealloc__(self):
        self.shut()
        free(self.heads)
        free(self.parts)

    def __init__(self, directory, *, node_id: int, cluster: int, storage: bytes, segment_bytes: int = 64 << 20,
                 idle_mark_ms: int = 50, create: bool = False, through_damage: bool = False):
        cdef const uint8_t *identity
        assert self.directory < 0, "a Wal is opened once"
        if not 4096 <= segment_bytes <= 1 << 31:
            raise ConfigError(f"segment_bytes must be 4096 to 2 GiB, not {segment_bytes}")
        if not 1 <= node_id <= 0xFFFF:
            raise ConfigError(f"node_id must be 1..65535, not {node_id}")
        if len(storage) != 16:
            raise ConfigError(f"storage must be 16 bytes, not {len(storage)}")
        identity = storage
        memcpy(self.storage, identity, 16)
        self.node_id = node_id
        self.cluster = cluster
        self.segment_bytes = segment_bytes & ~7
        self.idle_mark_us = idle_mark_ms * 1000
        self.path = os.path.join(os.fspath(directory), "log")
        if create:
            os.makedirs(self.path, mode=0o750, exist_ok=True)
        elif not os.path.isdir(self.path):
            raise StorageError(f"there is no log in {os.fspath(directory)!r}: {self.path!r} does not exist")
        self.directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.reader = LogReader(self.path, node_id=node_id, cluster=cluster, storage=storage, keep_going=through_damage)
        self.pool.directory = self.values.directory = self.directory
        self.pool.segment_bytes = self.segment_bytes
        self.pool.adopt(self.path)
        if self.reader.newest:
            self.oldest = self.reader.oldest
            return
        if not create:
            raise StorageError(f"there are no segments in {self.path!r}; restore the directory or replace this node")
        parent = os.open(os.fspath(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(parent)
        os.close(parent)
        self.oldest = 1
        self.scanned = True
        self._check(self._roll(0), "creating the first segment of the log")
        self._prepare_ahead()

    # --- append, sync ---

    cdef int _poison(self, int status) noexcept nogil:
        self.poisoned = True
        return status or EIO

    cdef int append(self, Record *records, size_t count) noexcept nogil:
        cdef size_t done = 0
        cdef size_t staged
        cdef size_t part_count = 0
        cdef uint64_t start
        cdef int status
        if self.poisoned or self.directory < 0:
            return EIO
        if not self.scanned:
            return EINVAL
        status = self._make_room(records, count)
        if status:
            return status if status == ENOSPC or status == EINVAL else self._poison(status)
        while done < count:
            start = self.offset
            staged = self._stage(records + done, count - done, &part_count)
            if staged == 0:
                status = self._roll(self._segment_for(records + done, count - done))
            else:
                status = self.fail_write or failpoint(AT_WAL_APPEND_BEFORE)
                if status == 0:
                    status = write_parts(self.fd, self.parts, part_count, <int64_t>start)
                if status == 0:
                    status = failpoint(AT_WAL_APPEND_AFTER)
            if status:
                return self._poison(status)
            done += staged
            self.appended = self.segment << 32 | self.offset
        self.append_count += 1
        self.record_count += count
        self._prepare_ahead()
        return 0

    cdef size_t _stage(self, Record *records, size_t count, size_t *part_count) noexcept nogil:
        """Seal headers for as many records as fit into this segment and one pwritev; moves `offset`."""
        cdef size_t i = 0
        cdef size_t parts = 0
        cdef uint64_t size
        cdef Record *r
        cdef RecordHead *head
        while i < count and i < STAGED_MAX:
            r = &records[i]
            size = record_bytes(r.length)
            if self.offset + size + NEXT_BYTES > self.segment_size and r.kind != RECORD_NEXT:
                break
            head = &self.heads[i]
            memset(head, 0, sizeof(RecordHead))
            head.kind = r.kind
            head.value_kind = r.value_kind
            head.group = r.group
            head.length = r.length
            head.slot = r.slot
            head.ballot = r.ballot
            head.mark = r.mark
            head.position = self.segment << 32 | self.offset
            head.generation = self.generation
            head.synced = self.synced
            head.value_crc = r.value_crc
            head.previous_crc = self.last_crc
            record_head_seal(head)
            r.position = head.position
            log_state_note(&self.state, r.kind, r.group, r.slot, r.ballot, r.mark)
            self.last_crc = head.crc
            self.offset += size
            self.byte_count += size
            self.parts[parts].iov_base = head
            self.parts[parts].iov_len = RECORD_HEAD_BYTES
            parts += 1
            if r.length:
                self.parts[parts].iov_base = r.value.data
                self.parts[parts].iov_len = r.length
                self.parts[parts + 1].iov_base = <void *>ZEROS
                self.parts[parts + 1].iov_len = <size_t>(size - RECORD_HEAD_BYTES - r.length)
                parts += 2 if self.parts[parts + 1].iov_len else 1
            i += 1
        part_count[0] = parts
        return i

    cdef int sync(self) noexcept nogil:
        cdef int status
        if self.poisoned or self.fd < 0:
            return EIO
        if self.synced == self.appended:
            return 0
        status = self.fail_sync or failpoint(AT_WAL_SYNC_BEFORE)
        if status == 0:
            status = sync_data(self.fd) or failpoint(AT_WAL_SYNC_AFTER)
        if status:
            return self._poison(status)
        self.synced = self.appended
        self.sync_count += 1
        self.unmarked = self.touched = True
        return 0

    cdef int _append_own(self, Record *record) noexcept nogil:
        cdef int status = self.append(record, 1)
        return status if status else self.sync()

    cdef void note_chosen(self, uint64_t upto) noexcept nogil:
        if upto > self.state.chosen_upto:
            self.state.chosen_upto = upto
            self.noted = True

    cdef int maybe_mark(self, uint64_t now_us) noexcept nogil:
        cdef Record mark
        cdef int status
        if self.poisoned or self.fd < 0:
            return EIO
        if self.pool.space_low and now_us >= self.retry_us:
            self.retry_us = now_us + RETRY_US
            self._prepare_ahead()
        if not self.unmarked:
            self.next_mark_us = 0
            return 0
        if self.touched:
            self.touched = False
            self.next_mark_us = now_us + self.idle_mark_us
            return 0
        if now_us < self.next_mark_us:
            return 0
        memset(&mark, 0, sizeof(Record))
        mark.kind = RECORD_MARK
        mark.slot = self.state.trimmed
        mark.ballot = self.state.promised
        mark.mark = self.state.chosen_upto
        self.next_mark_us = 0
        status = failpoint(AT_WAL_MARK) or self._append_own(&mark)
        self.unmarked = self.touched = self.noted = False
        self.mark_count += 1
        return 0 if status == ENOSPC else status

    # --- segments ---

    cdef uint64_t _usual(self) noexcept nogil:
        """Size of the next segment: a log starts small and grows."""
        cdef uint64_t size = 2 * self.segment_size if self.segment_size else FIRST_SEGMENT_BYTES
        return min(size, self.segment_bytes)

    cdef void _prepare_ahead(self) noexcept nogil:
        self.pool.prepare_ahead(self.offset > self.segment_size // 4, self._usual())

    cdef uint64_t _segment_for(self, const Record *records, size_t count) noexcept nogil:
        """Bytes of a segment that holds all of these, or at least the first if that is too much for one."""
        cdef uint64_t size = SEGMENT_HEAD_BYTES + NEXT_BYTES
        cdef size_t i
        for i in range(count):
            size += record_bytes(records[i].length)
            if size > SEGMENT_BYTES_MAX:
                return SEGMENT_HEAD_BYTES + NEXT_BYTES + record_bytes(records[0].length)
        return size

    cdef int _make_room(self, const Record *records, size_t count) noexcept nogil:
        """Have the file ready that this append will need, before its first byte is written.

        What does not fit into this segment goes into one that takes all of it, so an append that finds no space
        has written nothing.
        """
        cdef uint64_t offset = self.offset
        cdef size_t i
        for i in range(count):
            if records[i].length > VALUE_BYTES_MAX or (records[i].length and records[i].value == NULL):
                return EINVAL
        for i in range(count):
            offset += record_bytes(records[i].length)
            if offset + NEXT_BYTES > self.segment_size:
                return self.pool.get(self._segment_for(&records[i], count - i), self._usual())
        return 0

    cdef int _roll(self, uint64_t least) noexcept nogil:
        """Begin the next segment. All older ones are synced by then, so a torn tail lies in the newest one only."""
        cdef SegmentHead head
        cdef ReadyFile file
        cdef char before[NAME_BYTES]
        cdef char after[NAME_BYTES]
        cdef uint8_t sector[SEGMENT_HEAD_BYTES]
        cdef iovec part
        cdef int status = self.sync() if self.fd >= 0 else 0
        if status == 0:
            status = self.pool.get(least, self._usual())
        if status:
            return status
        file = self.pool.take(least)
        memset(&head, 0, sizeof(SegmentHead))
        head.segment = self.segment + 1
        head.size = file.size
        head.flags = SEGMENT_RECYCLED if file.recycled else 0
        head.cluster = self.cluster
        head.node_id = <uint16_t>self.node_id
        memcpy(head.storage, self.storage, 16)
        head.promised = self.state.promised
        head.incarnation = self.state.incarnation
        head.chosen_upto = self.state.chosen_upto
        head.trimmed = self.state.trimmed
        head.quarantine = <uint16_t>self.state.quarantine
        # In quarantine: what went missing is not recycled, and counts if it comes back.
        head.oldest = self.state.oldest if self.state.quarantine and self.state.oldest else self.oldest
        head.previous_end = self.appended
        head.previous_crc = self.last_crc
        status = random_bytes(&head.generation, sizeof(head.generation))
        segment_head_seal(&head)
        memset(sector, 0, sizeof(sector))
        memcpy(sector, &head, sizeof(head))
        part.iov_base = sector
        part.iov_len = sizeof(sector)
        if status == 0:
            status = failpoint(AT_SEGMENT_BEGIN) or write_parts(file.fd, &part, 1, 0)
        if status == 0:
            status = failpoint(AT_SEGMENT_HEAD) or sync_data(file.fd)
        ready_name(before, file.serial)
        segment_name(after, head.segment)
        if status == 0:
            status = failpoint(AT_SEGMENT_RENAME) or rename_file(self.directory, before, after)
        if status == 0:
            status = failpoint(AT_SEGMENT_DIRECTORY) or sync_all(self.directory)
        if status == 0 and self.fd >= 0:
            status = self._name_next(head.segment)
        if status:
            close_file(&file.fd)
            return status
        failpoint(AT_SEGMENT_BEGUN)
        self._begin_segment(&head, file.fd, SEGMENT_HEAD_BYTES, head.previous_crc)
        self.unmarked = False            # the head tells that everything before it is durable
        self.segment_count += 1
        return 0

    cdef int _name_next(self, uint64_t segment) noexcept nogil:
        """End the present segment with a record that names its successor, so that one that goes missing is missed.

        It lies behind the `previous_end` that the successor tells: while that exists nobody reads it.
        """
        cdef Record record
        cdef size_t part_count = 0
        cdef int64_t offset = <int64_t>self.offset
        cdef int status
        memset(&record, 0, sizeof(Record))
        record.kind = RECORD_NEXT
        record.slot = segment
        self._stage(&record, 1, &part_count)
        status = self.fail_write or write_parts(self.fd, self.parts, part_count, offset)
        return status or self.fail_sync or sync_data(self.fd)

    cdef void _begin_segment(self, const SegmentHead *head, int fd, uint64_t offset, uint32_t crc) noexcept nogil:
        close_file(&self.fd)
        self.fd = fd
        self.segment = head.segment
        self.segment_size = head.size
        self.generation = head.generation
        self.offset = offset
        self.last_crc = crc
        self.appended = self.synced = self.segment << 32 | offset

    # --- recovery ---

    cdef int scan(self, RecordSink sink, void *context) noexcept nogil:
        cdef int status = self.scan_begin()
        while status == 0 and self.reader.more:
            status = self.reader.step(sink, context)
        return self.scan_end(status)

    cdef int scan_begin(self) noexcept nogil:
        if self.poisoned or self.directory < 0:
            return EIO
        self.reader.oldest = self.oldest
        if self.fd >= 0:
            self.reader.newest = self.segment
        return self.reader.begin()

    cdef int scan_end(self, int status) noexcept nogil:
        if status == EUCLEAN and self.reader.keep_going and not self.reader.more and not self.reader.is_foreign:
            status = 0
        if status == 0 and not self.scanned:
            self.state = self.reader.state
            if self.reader.damaged_headers and not self.state.quarantine:
                self.may_begin_behind = True       # and nothing else: see begin_behind
            elif self.reader.image == NULL:        # already in quarantine, and its newest segment is gone or damaged
                status = self._begin_behind(max(self.reader.newest, self.reader.state.next) + 1)
            else:
                status = self._adopt_tail()
            if status and status != ENOSPC:
                self._poison(status)
        self.reader.release()
        return status

    cdef int _begin_behind(self, uint64_t segment) noexcept nogil:
        """Begin segment number `segment`, above all that exist, without looking at the end of the one before it."""
        self.segment = segment - 1
        self.appended = self.synced = self.segment << 32 | SEGMENT_HEAD_BYTES
        cdef int status = self._roll(0)
        if status == 0:
            self.scanned = True
            self.may_begin_behind = False
            self._prepare_ahead()
        return status

    cdef int _adopt_tail(self) noexcept nogil:
        """Cut what is torn, make all that was read durable, and go on behind it.

        What no record claims to be synced may lie in the page cache only, even marked clean after a sync that
        failed, so it is written once more. Behind the end everything becomes zero before anything is appended:
        no stale record can come back behind a new one.
        """
        cdef int fd = -1
        cdef uint64_t end = offset_of(self.reader.end)
        cdef uint64_t start = SEGMENT_HEAD_BYTES
        cdef iovec part
        cdef int status = open_segment(self.directory, self.reader.newest, True, &fd)
        if status:
            return status
        if self.reader.claim >> 32 == self.reader.newest and offset_of(self.reader.claim) > start:
            start = offset_of(self.reader.claim)
        status = failpoint(AT_WAL_TAIL_BEFORE)
        if status == 0 and start < end:
            part.iov_base = self.reader.image + start
            part.iov_len = <size_t>(end - start)
            status = write_parts(fd, &part, 1, <int64_t>start)
        if status == 0 and self.reader.written_end > end:
            status = write_zeros(fd, end, self.reader.written_end)
        if status == 0:
            status = failpoint(AT_WAL_TAIL_WRITTEN) or sync_data(fd)
        if status == 0:
            status = sync_all(self.directory)
        if status:
            close_file(&fd)
            return status
        self._begin_segment(&self.reader.head, fd, end, self.reader.previous_crc)
        self.unmarked = self.touched = start < end and self.reader.last_kind != RECORD_MARK
        self.scanned = True
        failpoint(AT_WAL_TAIL_AFTER)
        while self.oldest < self.state.oldest:
            self.pool.reuse(self.oldest, self._usual())
            self.oldest += 1
        self._prepare_ahead()
        return 0

    # --- reading, recycling ---

    cdef int read(self, uint64_t position, uint32_t length, uint32_t value_crc, uint8_t *out) noexcept nogil:
        return self.values.read(position, length, value_crc, out)

    cdef int recycle(self, uint64_t segment) noexcept nogil:
        cdef Record record
        cdef int status
        segment = min(segment, self.segment)
        if segment <= self.oldest:
            return 0
        memset(&record, 0, sizeof(Record))
        record.kind = RECORD_RECYCLED
        record.slot = segment
        status = failpoint(AT_RECYCLE_BEFORE) or self._append_own(&record)
        if status:
            return status
        self.values.forget_below(segment)
        while self.oldest < segment:
            self.pool.reuse(self.oldest, self._usual())
            self.oldest += 1
        status = failpoint(AT_RECYCLE_DIRECTORY) or sync_all(self.directory)
        return self._poison(status) if status else 0

    cdef void shut(self) noexcept nogil:
        self.pool.shut()
        close_file(&self.fd)
        self.values.shut()
        close_file(&self.directory)

    cdef object _check(self, int status, str what):
        if status == 0:
            return None
        if status == EUCLEAN:
            raise StorageError(
                f"{what}: {self.reader.damage}. Nothing was changed. This node must not vote with this directory: "
                f"restore {self.path!r} from nowhere but its own disk, or replace the node under a new id"
            )
        if status == ENOSPC:
            raise StorageError(f"{what}: no space left for {self.path!r}; nothing was written. Free some space and go on")
        if self.poisoned:
            raise StorageError(
                f"{what}: {os.strerror(status)} in {self.path!r}. A write or sync failed; the log takes nothing more: "
                f"check the disk, then restart the node"
            )
        raise StorageError(f"{what}: {os.strerror(status)} ({self.path!r})")
