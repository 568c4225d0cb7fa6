"""Values of the write-ahead log, read back from its segments."""

cimport cython
from libc.errno cimport EBADMSG, EINVAL
from libc.stdint cimport int64_t

from paxos._core.crc32c cimport crc32c
from paxos._core.failpoint cimport AT_WAL_READ, failpoint
from paxos._core.segment cimport (
    close_file, open_segment, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    read_bytes, record_head_valid,
)
from paxos._core.wal_format cimport RECORD_HEAD_BYTES, SEGMENT_HEAD_BYTES, RecordHead, offset_of


@cython.final
cdef class ValueReader:
    """Reads values by position; owned by a ``Wal``."""

    def __cinit__(self):
        self.directory = self.fd = -1
        pthread_mutex_init(&self.lock, NULL)

    def __dealloc__(self):
        self.shut()
        pthread_mutex_destroy(&self.lock)

    cdef int read(self, uint64_t position, uint32_t length, uint32_t value_crc, uint8_t *out) noexcept nogil:
        cdef RecordHead head
        cdef uint64_t segment = position >> 32
        cdef uint64_t offset = offset_of(position)
        cdef int status = 0
        if self.directory < 0 or offset < SEGMENT_HEAD_BYTES:
            return EINVAL
        pthread_mutex_lock(&self.lock)
        if self.fd < 0 or self.segment != segment:
            close_file(&self.fd)
            self.segment = segment
            status = open_segment(self.directory, segment, False, &self.fd)
        if status == 0:
            status = failpoint(AT_WAL_READ) or read_bytes(self.fd, <uint8_t *>&head, sizeof(RecordHead), <int64_t>offset)
        if status == 0 and (
            not record_head_valid(<const uint8_t *>&head, position, head.generation, <uint64_t>1 << 32)
            or head.length != length or head.value_crc != value_crc
        ):
            status = EBADMSG
        if status == 0:
            status = read_bytes(self.fd, out, length, <int64_t>(offset + RECORD_HEAD_BYTES))
        pthread_mutex_unlock(&self.lock)
        if status == 0 and crc32c(0, out, length) != value_crc:
            status = EBADMSG
        return status

    cdef void forget_below(self, uint64_t segment) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        if self.segment < segment:
            close_file(&self.fd)
        pthread_mutex_unlock(&self.lock)

    cdef void shut(self) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        close_file(&self.fd)
        self.directory = -1
        pthread_mutex_unlock(&self.lock)
