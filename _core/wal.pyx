"""The write-ahead log of one node: what is durable, and nothing else is ever reported."""

import os
import re

from libc.errno cimport EBADMSG, EINVAL, EIO, ENOSPC
from libc.stdint cimport int64_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from paxos._core.buffer cimport Buffer, buffer_from_bytes, buffer_release
from paxos._core.crc32c cimport crc32c
from paxos._core.effects cimport RECORD_MARK, RecordList
from paxos._core.log_reader cimport DAMAGE_MISSING, LogReader, collect, take_views
from paxos._core.segment cimport (
    NAME_BYTES, close_file, create_ready, file_size, open_segment, prepare_done, prepare_finish, prepare_start,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, random_bytes, read_bytes,
    open_ready, ready_name, record_head_seal, record_head_valid, remove_file, rename_file, segment_head_seal, segment_name,
    sync_all, sync_data, write_parts, write_zeros,
)
from paxos._core.wal_format cimport (
    RECORD_HEAD_BYTES, RECORD_RECYCLED, SEGMENT_HEAD_BYTES, SEGMENT_RECYCLED, VALUE_BYTES_MAX, log_state_note,
    offset_of, record_bytes,
)

from paxos._core.effects import RecordView
from paxos.errors import ConfigError, StorageError

cdef extern from "errno.h":
    int EDQUOT, EUCLEAN

cdef enum:
    FIRST_SEGMENT_BYTES = 4 << 20    # a new log starts small and doubles up to `segment_bytes`
    RESERVE_BYTES = 1 << 20          # the last segment of a full disk
    RESERVE_SERIAL = 0
    RETRY_US = 1_000_000

cdef const char *ZEROS = b"\0\0\0\0\0\0\0\0"

READY_NAME = re.compile(r"ready-([0-9a-f]{8})\.segment")


cdef class Wal:
    """Segments of one node under ``directory``. See ``_core/wal.pxd`` for the native contract.

    The native methods ``append``, ``sync``, ``scan`` and ``read`` are not visible here; the Python face is
    ``append_views``, ``sync_now``, ``scan_views``, ``read_value``
    (``paxos.storage.log.WriteAheadLog`` has the short names).

    Args:
        directory: the node's data directory; the segments lie in ``log/`` below it.
        node_id, cluster, storage: stamped on every segment and checked on every scan; ``storage`` has 16 bytes.
        segment_bytes: size of a segment once the log has grown, at least 4096. A larger record gets a segment of its own.
        idle_mark_ms: an idle log writes one mark after this long.
        create: make an empty log where there is none.

    Raises:
        StorageError: there is no log and ``create`` is false, or it cannot be opened.
    """

    def __cinit__(self):
        self.directory = self.fd = self.read_fd = -1
        self.pid = getpid()
        pthread_mutex_init(&self.read_lock, NULL)
        self.heads = <RecordHead *>malloc(STAGED_MAX * sizeof(RecordHead))
        self.parts = <iovec *>malloc(3 * STAGED_MAX * sizeof(iovec))
        if self.heads == NULL or self.parts == NULL:
            raise MemoryError("no memory for the write-ahead log")

    def __dealloc__(self):
        self.shut()
        pthread_mutex_destroy(&self.read_lock)
        free(self.heads)
        free(self.parts)

    def __init__(self, directory, *, node_id: int, cluster: int, storage: bytes, segment_bytes: int = 64 << 20,
                 idle_mark_ms: int = 50, create: bool = False):
        cdef const uint8_t *identity
        if self.directory >= 0:
            raise RuntimeError("a Wal is opened once")
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
        self.reader = LogReader(self.path, node_id=node_id, cluster=cluster, storage=storage)
        self._adopt_ready_files()
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

    def _adopt_ready_files(self) -> None:
        """Use again what an earlier run had made ready; unknown leftovers are removed."""
        for name in sorted(os.listdir(self.path)):
            match = READY_NAME.fullmatch(name)
            if not match:
                continue
            serial = int(match[1], 16)
            size = os.stat(os.path.join(self.path, name)).st_size
            if serial == RESERVE_SERIAL and size >= 4096:
                self.has_reserve = True
            elif self.ready_count < READY_MAX and 4096 <= size <= 1 << 31 and size % 8 == 0 and serial:
                self.ready[self.ready_count].fd = os.open(os.path.join(self.path, name), os.O_RDWR | os.O_CLOEXEC)
                self.ready[self.ready_count].serial = serial
                self.ready[self.ready_count].size = size
                self.ready[self.ready_count].recycled = True
                self.ready_count += 1
                self.ready_serial = max(self.ready_serial, serial)
            else:
                os.unlink(os.path.join(self.path, name))

    # --- append, sync ---

    cdef int _poison(self, int status) noexcept nogil:
        self.poisoned = True
        return status if status else EIO

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
            return status
        while done < count:
            start = self.offset
            staged = self._stage(records + done, count - done, &part_count)
            if staged == 0:
                status = self._roll(SEGMENT_HEAD_BYTES + record_bytes(records[done].length))
            else:
                status = self.fail_write
                if status == 0:
                    status = write_parts(self.fd, self.parts, part_count, <int64_t>start)
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
            if self.offset + size > self.segment_size:
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
        status = self.fail_sync
        if status == 0:
            status = sync_data(self.fd)
        if status:
            return self._poison(status)
        self.synced = self.appended
        self.sync_count += 1
        self.unmarked = self.touched = True
        return 0

    cdef int _append_own(self, Record *record) noexcept nogil:
        cdef int status = self.append(record, 1)
        return status if status else self.sync()

    cdef int maybe_mark(self, uint64_t now_us) noexcept nogil:
        cdef Record mark
        cdef int status
        if self.poisoned or self.fd < 0:
            return EIO
        if self.space_low and now_us >= self.retry_us:
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
        status = self._append_own(&mark)
        self.unmarked = self.touched = False
        self.mark_count += 1
        return 0 if status == ENOSPC else status

    # --- segments ---

    cdef uint64_t _next_size(self, uint64_t least) noexcept nogil:
        cdef uint64_t size = 2 * self.segment_size if self.segment_size else FIRST_SEGMENT_BYTES
        size = min(size, self.segment_bytes)
        return max(size, (least + 7) & ~(<uint64_t>7))

    cdef int _make_room(self, const Record *records, size_t count) noexcept nogil:
        """Have a file ready for every segment that this append will need, before its first byte is written."""
        cdef uint64_t offset = self.offset
        cdef uint64_t room = self.segment_size
        cdef uint64_t least
        cdef uint64_t taken = 0          # bit mask of the ready files that are spoken for
        cdef size_t i
        cdef int found, status
        for i in range(count):
            if records[i].length > VALUE_BYTES_MAX:
                return EINVAL
            if offset + record_bytes(records[i].length) > room:
                if taken == 0:
                    least = SEGMENT_HEAD_BYTES + record_bytes(records[i].length)
                    status = self._get_ready(least)
                    if status:
                        return status
                    found = self._find_ready(least)
                    room = self.ready[found].size
                    taken = 1
                else:
                    # A drain over several small segments: the later ones are made as they come, and a full
                    # disk then poisons the log.
                    return 0
                offset = SEGMENT_HEAD_BYTES
            offset += record_bytes(records[i].length)
        return 0

    cdef int _find_ready(self, uint64_t least) noexcept nogil:
        """Index of the ready file that `_roll` would take, or -1."""
        cdef int i
        for i in range(self.ready_count):
            if self.ready[i].size >= least:
                return i
        return -1

    cdef void _set_aside(self, ReadyFile file) noexcept nogil:
        """Keep a file for the next segment; the reserve is only noted."""
        if file.serial == RESERVE_SERIAL:
            close_file(&file.fd)
            self.has_reserve = True
        elif self.ready_count < READY_MAX:
            self.ready[self.ready_count] = file
            self.ready_count += 1
        else:
            close_file(&file.fd)

    cdef int _get_ready(self, uint64_t least) noexcept nogil:
        """Make sure that a file of at least `least` bytes is ready. A failure changes nothing."""
        cdef ReadyFile file
        cdef int status
        if self._find_ready(least) >= 0:
            return 0
        if self.preparation.running and self.preparation.file.size >= least:
            self.wait_count += 0 if prepare_done(&self.preparation) else 1
            self._collect_prepared(True)
            if self._find_ready(least) >= 0:
                return 0
        if self.ready_count == READY_MAX:        # all too small: the last one gives way
            self.ready_count -= 1
            close_file(&self.ready[self.ready_count].fd)
        self.ready_serial += 1
        file.serial = self.ready_serial
        file.size = self._next_size(least)
        file.fd = -1
        status = self.fail_space
        if status == 0:
            status = create_ready(self.directory, &file)
        if status == ENOSPC or status == EDQUOT:
            self.space_low = True
            if not self.has_reserve or open_ready(self.directory, RESERVE_SERIAL, &file.fd):
                return ENOSPC
            if file_size(file.fd, &file.size) or file.size < least:
                close_file(&file.fd)
                return ENOSPC
            file.serial = RESERVE_SERIAL
            file.recycled = True
            self.has_reserve = False
            status = 0
        if status == 0:
            self.ready[self.ready_count] = file
            self.ready_count += 1
        return status

    cdef void _collect_prepared(self, bint wait) noexcept nogil:
        """Take over what the preparing thread has made, if it is done or `wait`."""
        cdef ReadyFile file
        if not self.preparation.running or not (wait or prepare_done(&self.preparation)):
            return
        if prepare_finish(&self.preparation, &file):
            self.space_low = True
            return
        if file.serial != RESERVE_SERIAL:
            self.space_low = False
        self._set_aside(file)

    cdef void _prepare_ahead(self) noexcept nogil:
        """Have the next file made while this segment fills; then the reserve, if it was used up."""
        cdef uint32_t serial
        cdef uint64_t size = self._next_size(0)
        self._collect_prepared(False)
        if self.preparation.running:
            return
        if self.ready_count == 0 and (self.space_low or self.offset > self.segment_size // 4):
            self.ready_serial += 1
            serial = self.ready_serial
        elif self.has_reserve or self.space_low:
            return
        else:
            serial = RESERVE_SERIAL
            size = min(<uint64_t>RESERVE_BYTES, self.segment_bytes)
        if self.fail_space or prepare_start(&self.preparation, self.directory, serial, size):
            self.space_low = True

    cdef int _roll(self, uint64_t least) noexcept nogil:
        """Begin the next segment. All older ones are synced by then, so a torn tail lies in the newest one only."""
        cdef SegmentHead head
        cdef ReadyFile file
        cdef char before[NAME_BYTES]
        cdef char after[NAME_BYTES]
        cdef uint8_t sector[SEGMENT_HEAD_BYTES]
        cdef iovec part
        cdef int i, found
        cdef int status = self.sync() if self.fd >= 0 else 0
        if status == 0:
            status = self._get_ready(least)
        if status:
            return status
        found = self._find_ready(least)
        file = self.ready[found]
        self.ready_count -= 1
        for i in range(found, self.ready_count):
            self.ready[i] = self.ready[i + 1]
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
        head.oldest = self.oldest
        head.previous_end = self.appended
        head.previous_crc = self.last_crc
        status = random_bytes(&head.generation, sizeof(head.generation))
        segment_head_seal(&head)
        memset(sector, 0, sizeof(sector))
        memcpy(sector, &head, sizeof(head))
        part.iov_base = sector
        part.iov_len = sizeof(sector)
        if status == 0:
            status = write_parts(file.fd, &part, 1, 0)
        if status == 0:
            status = sync_data(file.fd)
        ready_name(before, file.serial)
        segment_name(after, head.segment)
        if status == 0:
            status = rename_file(self.directory, before, after)
        if status == 0:
            status = sync_all(self.directory)
        if status:
            close_file(&file.fd)
            return status
        self._begin_segment(&head, file.fd, SEGMENT_HEAD_BYTES, self.last_crc)
        self.unmarked = False            # the head tells that everything before it is durable
        self.segment_count += 1
        return 0

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
        cdef int status
        if self.poisoned or self.directory < 0:
            return EIO
        self.reader.oldest = self.oldest
        if self.fd >= 0:
            self.reader.newest = self.segment
        status = self.reader.run(sink, context)
        if status == 0 and not self.scanned:
            status = self._adopt_tail()
            if status:
                self._poison(status)
        self.reader.release()
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
        if start < end:
            part.iov_base = self.reader.image + start
            part.iov_len = <size_t>(end - start)
            status = write_parts(fd, &part, 1, <int64_t>start)
        if status == 0 and self.reader.written_end > end:
            status = write_zeros(fd, end, self.reader.written_end)
        if status == 0:
            status = sync_data(fd)
        if status == 0:
            status = sync_all(self.directory)
        if status:
            close_file(&fd)
            return status
        self.state = self.reader.state
        self._begin_segment(&self.reader.head, fd, end, self.reader.previous_crc)
        self.unmarked = self.touched = start < end and self.reader.last_kind != RECORD_MARK
        self.scanned = True
        while self.oldest < self.state.oldest:
            self._forget_segment(self.oldest)
            self.oldest += 1
        self._prepare_ahead()
        return 0

    # --- reading, recycling ---

    cdef int read(self, uint64_t position, uint32_t length, uint32_t value_crc, uint8_t *out) noexcept nogil:
        cdef RecordHead head
        cdef uint64_t segment = position >> 32
        cdef uint64_t offset = offset_of(position)
        cdef int status = 0
        if self.directory < 0 or offset < SEGMENT_HEAD_BYTES:
            return EINVAL
        pthread_mutex_lock(&self.read_lock)
        if self.read_fd < 0 or self.read_segment != segment:
            close_file(&self.read_fd)
            self.read_segment = segment
            status = open_segment(self.directory, segment, False, &self.read_fd)
        if status == 0:
            status = read_bytes(self.read_fd, <uint8_t *>&head, sizeof(RecordHead), <int64_t>offset)
        if status == 0 and (
            not record_head_valid(<const uint8_t *>&head, position, head.generation, <uint64_t>1 << 32)
            or head.length != length or head.value_crc != value_crc
        ):
            status = EBADMSG
        if status == 0:
            status = read_bytes(self.read_fd, out, length, <int64_t>(offset + RECORD_HEAD_BYTES))
        pthread_mutex_unlock(&self.read_lock)
        if status == 0 and crc32c(0, out, length) != value_crc:
            status = EBADMSG
        return status

    cdef int recycle(self, uint64_t segment) noexcept nogil:
        cdef Record record
        cdef int status
        segment = min(segment, self.segment)
        if segment <= self.oldest:
            return 0
        memset(&record, 0, sizeof(Record))
        record.kind = RECORD_RECYCLED
        record.slot = segment
        status = self._append_own(&record)
        if status:
            return status
        pthread_mutex_lock(&self.read_lock)
        if self.read_segment < segment:
            close_file(&self.read_fd)
        pthread_mutex_unlock(&self.read_lock)
        while self.oldest < segment:
            self._forget_segment(self.oldest)
            self.oldest += 1
        status = sync_all(self.directory)
        return self._poison(status) if status else 0

    cdef void _forget_segment(self, uint64_t number) noexcept nogil:
        """Keep the file of an old segment for reuse if it has the usual size and few are waiting; else remove it."""
        cdef char before[NAME_BYTES]
        cdef char after[NAME_BYTES]
        cdef ReadyFile file
        segment_name(before, number)
        file.fd = -1
        file.recycled = True
        if self.ready_count < 2 and open_segment(self.directory, number, True, &file.fd) == 0:
            self.ready_serial += 1
            file.serial = self.ready_serial
            ready_name(after, file.serial)
            if file_size(file.fd, &file.size) == 0 and file.size >= self._next_size(0) and (
                rename_file(self.directory, before, after) == 0
            ):
                self._set_aside(file)
                return
            close_file(&file.fd)
        remove_file(self.directory, before)

    cdef void shut(self) noexcept nogil:
        cdef int i
        if getpid() == self.pid:         # a forked child has no such thread, and no business with the files
            self._collect_prepared(True)
        for i in range(self.ready_count):
            close_file(&self.ready[i].fd)
        self.ready_count = 0
        close_file(&self.fd)
        close_file(&self.read_fd)
        close_file(&self.directory)

    # --- the Python face ---

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
                f"{what}: {os.strerror(status)} in {self.path!r}. A write or sync failed; the log takes nothing more. "
                f"Check the disk, then restart the node"
            )
        raise StorageError(f"{what}: {os.strerror(status)} ({self.path!r})")

    def append_views(self, records) -> list[int]:
        """Append ``RecordView`` objects in one write and return their positions. Not durable before :meth:`sync_now`.

        A ``value_crc`` of 0 is filled in; any other is stored as it is.
        """
        cdef size_t i = 0
        cdef int status
        items = list(records)
        cdef size_t count = len(items)
        cdef Record *native = <Record *>malloc((count + 1) * sizeof(Record))
        if native == NULL:
            raise MemoryError(f"no memory for {count} records")
        memset(native, 0, (count + 1) * sizeof(Record))
        try:
            for i in range(count):
                view = items[i]
                native[i].kind = view.kind
                native[i].value_kind = view.value_kind
                native[i].group = view.group
                native[i].slot = view.slot
                native[i].ballot = view.ballot
                native[i].mark = view.mark
                if view.value:
                    native[i].value = buffer_from_bytes(view.value)
                    native[i].length = <uint32_t>native[i].value.size
                    native[i].value_crc = view.value_crc or crc32c(0, native[i].value.data, native[i].length)
            with nogil:
                status = self.append(native, count)
            self._check(status, "appending to the log")
            return [native[i].position for i in range(count)]
        finally:
            for i in range(count):
                buffer_release(native[i].value)
            free(native)

    def sync_now(self) -> None:
        """Make everything appended durable. Raises ``StorageError``; after that the log takes nothing more."""
        cdef int status
        with nogil:
            status = self.sync()
        self._check(status, "syncing the log")

    def replay(self):
        """Yield every record of the log in order; the first complete pass cuts a torn tail and opens it for appends."""
        for views in self._scan_lists():
            yield from views

    def _scan_lists(self):
        cdef RecordList records
        cdef int status
        memset(&records, 0, sizeof(RecordList))
        with nogil:
            status = self.scan(collect, &records)
        views = take_views(&records)
        self._check(status, "reading the log")
        return [views]

    def scan_views(self) -> list[RecordView]:
        """Return every record of the log, oldest first, and open it for appends.

        A record that ``is_damaged`` has a good header and no trustworthy value.

        Raises:
            StorageError: damage that may hide promises. Nothing was changed.
        """
        return list(self.replay())

    def last_state(self) -> dict[str, object]:
        """Return what the newest segment says about the log, without opening it for appends: see ``LogReader.results``.

        The next incarnation is one more than this one's ``"incarnation"``.

        Raises:
            StorageError: the newest segment cannot be trusted.
        """
        cdef LogReader reader = LogReader(
            self.path, node_id=self.node_id, cluster=self.cluster, storage=bytes(self.storage[:16]))
        cdef int status
        reader.oldest = reader.newest
        reader.state.oldest = reader.newest
        with nogil:
            status = reader.run(NULL, NULL)
        reader.release()
        if status == EUCLEAN and reader.reason != DAMAGE_MISSING:
            raise StorageError(f"reading the newest segment of {self.path!r}: {reader.damage}")
        if status != EUCLEAN:
            self._check(status, "reading the newest segment")
        return reader.results()

    def read_value(self, position: int, length: int, value_crc: int) -> bytes:
        """Return the value of the record at ``position``, checked. Any thread may call this.

        Raises:
            StorageError: it is damaged, trimmed, or never was there.
        """
        cdef uint64_t where = position
        cdef uint32_t size = length
        cdef uint32_t crc = value_crc
        cdef int status
        cdef bytearray out = bytearray(size)
        cdef uint8_t *data = <uint8_t *>out
        with nogil:
            status = self.read(where, size, crc, data)
        self._check(status, f"reading the record at {position >> 32:016x}:{position & 0xFFFFFFFF}")
        return bytes(out)

    def mark_if_idle(self, now_us: int) -> int:
        """Call ``maybe_mark``; return the time in microseconds at which it wants to be called again, or 0."""
        self._check(self.maybe_mark(now_us), "marking the log")
        return self.next_mark_us

    def recycle_below(self, segment: int) -> None:
        """Give up the segments below ``segment``, whose slots a durable trim record covers."""
        self._check(self.recycle(segment), "recycling segments")

    def inject_failure(self, operation: str, error: int) -> None:
        """For tests: let every following ``"sync"``, ``"write"`` or ``"space"`` fail with this errno; 0 ends it."""
        if operation == "sync":
            self.fail_sync = error
        elif operation == "write":
            self.fail_write = error
        elif operation == "space":
            self.fail_space = error
        else:
            raise ValueError(f"operation must be 'sync', 'write' or 'space', not {operation!r}")

    def stats(self) -> dict[str, object]:
        """Return counters and marks of the log. Positions are ``segment << 32 | offset``."""
        return {
            "appends": self.append_count, "syncs": self.sync_count, "records": self.record_count,
            "bytes": self.byte_count, "marks": self.mark_count, "segments_begun": self.segment_count,
            "waits_for_segment": self.wait_count, "appended": self.appended, "synced": self.synced,
            "oldest_segment": self.oldest, "segment": self.segment, "segment_bytes": self.segment_size,
            "ready_files": self.ready_count, "has_reserve": bool(self.has_reserve),
            "space_low": bool(self.space_low), "poisoned": bool(self.poisoned), "scanned": bool(self.scanned),
            "promised": self.state.promised, "incarnation": self.state.incarnation,
            "chosen_upto": self.state.chosen_upto, "trimmed": self.state.trimmed,
        }

    @property
    def is_poisoned(self) -> bool:
        """True after a write or a sync failed: the log takes nothing more."""
        return self.poisoned

    @property
    def is_space_low(self) -> bool:
        """True while no room can be had for the segment after this one."""
        return self.space_low

    def close(self) -> None:
        """Write a last mark, sync, and close every file. Safe to call twice.

        Raises:
            StorageError: the last sync failed; what was synced before is safe.
        """
        cdef Record mark
        cdef int status = 0
        if self.directory < 0:
            return
        if getpid() == self.pid and self.fd >= 0 and self.scanned and not self.poisoned and (self.unmarked or self.synced != self.appended):
            memset(&mark, 0, sizeof(Record))
            mark.kind = RECORD_MARK
            mark.slot = self.state.trimmed
            mark.ballot = self.state.promised
            mark.mark = self.state.chosen_upto
            with nogil:
                status = self.sync()
                if status == 0:
                    status = self._append_own(&mark)
        with nogil:
            self.shut()
        if status and status != ENOSPC:
            self._check(status, "closing the log")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
