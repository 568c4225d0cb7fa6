"""Files of the write-ahead log: zero-filled, written whole, and checked before they are believed."""

from libc.errno cimport EBADMSG, EINTR, EIO, ENOSYS, EOPNOTSUPP, errno
from libc.stdio cimport snprintf
from libc.string cimport memset
from posix.types cimport mode_t, off_t

from paxos._core.crc32c cimport crc32c
from paxos._core.failpoint cimport AT_SEGMENT_ALLOCATE, AT_SEGMENT_CREATE, AT_SEGMENT_SYNC, AT_SEGMENT_ZEROS, failpoint
from paxos._core.wal_format cimport (
    RECORD_HEAD_BYTES, SEGMENT_MAGIC, VALUE_BYTES_MAX, WAL_FORMAT, record_bytes,
)

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdio.h>
    #include <sys/random.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <unistd.h>
    static const unsigned char paxos_zeros[1 << 20];
    """
    const uint8_t paxos_zeros[1 << 20]
    ssize_t pwritev(int fd, const iovec *parts, int count, off_t offset)
    ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
    ssize_t pread(int fd, void *out, size_t size, off_t offset)
    int fdatasync(int fd)
    int fsync(int fd)
    int fallocate(int fd, int mode, off_t offset, off_t size)
    int openat(int directory, const char *name, int flags, mode_t mode)
    int renameat(int old_directory, const char *before, int new_directory, const char *after)
    int unlinkat(int directory, const char *name, int flags)
    int close(int fd)
    off_t lseek(int fd, off_t offset, int whence)
    ssize_t getrandom(void *out, size_t size, unsigned int flags)
    int O_RDWR, O_RDONLY, O_CREAT, O_TRUNC, O_CLOEXEC, SEEK_END
    int pthread_create(pthread_t *thread, void *attributes, void *(*run)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)
    void store_release "__atomic_store_n"(int *target, int value, int order)
    int load_acquire "__atomic_load_n"(int *target, int order)
    int RELEASE "__ATOMIC_RELEASE"
    int ACQUIRE "__ATOMIC_ACQUIRE"

cdef enum:
    PARTS_MAX = 1024         # IOV_MAX of Linux
    ZEROS_BYTES = 1 << 20
    SYNC_EVERY_BYTES = 1 << 20


cdef void segment_name(char *name, uint64_t number) noexcept nogil:
    snprintf(name, NAME_BYTES, "%016llx.segment", <unsigned long long>number)


cdef void ready_name(char *name, uint32_t serial) noexcept nogil:
    snprintf(name, NAME_BYTES, "ready-%08x.segment", <unsigned int>serial)


cdef int write_parts(int fd, iovec *parts, size_t count, int64_t offset) noexcept nogil:
    cdef ssize_t written
    cdef size_t left
    while count:
        if parts[0].iov_len == 0:
            parts += 1
            count -= 1
            continue
        written = pwritev(fd, parts, <int>(count if count < PARTS_MAX else PARTS_MAX), offset)
        if written < 0:
            if errno == EINTR:
                continue
            return errno
        if written == 0:
            return EIO
        offset += written
        left = <size_t>written
        while count and left >= parts[0].iov_len:
            left -= parts[0].iov_len
            parts += 1
            count -= 1
        if left:
            parts[0].iov_base = <uint8_t *>parts[0].iov_base + left
            parts[0].iov_len -= left
    return 0


cdef int write_zeros(int fd, uint64_t start, uint64_t stop) noexcept nogil:
    cdef iovec part
    cdef uint64_t size
    cdef int status
    while start < stop:
        size = stop - start if stop - start < ZEROS_BYTES else ZEROS_BYTES
        part.iov_base = <void *>paxos_zeros
        part.iov_len = <size_t>size
        status = write_parts(fd, &part, 1, <int64_t>start)
        if status:
            return status
        start += size
    return 0


cdef int read_bytes(int fd, uint8_t *out, uint64_t size, int64_t offset) noexcept nogil:
    cdef ssize_t got
    while size:
        got = pread(fd, out, <size_t>size, offset)
        if got < 0:
            if errno == EINTR:
                continue
            return errno
        if got == 0:
            return EBADMSG
        out += got
        offset += got
        size -= <uint64_t>got
    return 0


cdef int sync_data(int fd) noexcept nogil:
    return 0 if fdatasync(fd) == 0 else errno


cdef int sync_all(int fd) noexcept nogil:
    return 0 if fsync(fd) == 0 else errno


cdef int open_segment(int directory, uint64_t number, bint writable, int *fd) noexcept nogil:
    cdef char name[NAME_BYTES]
    segment_name(name, number)
    fd[0] = openat(directory, name, (O_RDWR if writable else O_RDONLY) | O_CLOEXEC, 0)
    return 0 if fd[0] >= 0 else errno


cdef int open_ready(int directory, uint32_t serial, int *fd) noexcept nogil:
    cdef char name[NAME_BYTES]
    ready_name(name, serial)
    fd[0] = openat(directory, name, O_RDWR | O_CLOEXEC, 0)
    return 0 if fd[0] >= 0 else errno


cdef int file_size(int fd, uint64_t *size) noexcept nogil:
    cdef off_t end = lseek(fd, 0, SEEK_END)
    if end < 0:
        return errno
    size[0] = <uint64_t>end
    return 0


cdef int rename_file(int directory, const char *before, const char *after) noexcept nogil:
    return 0 if renameat(directory, before, directory, after) == 0 else errno


cdef int remove_file(int directory, const char *name) noexcept nogil:
    return 0 if unlinkat(directory, name, 0) == 0 else errno


cdef void close_file(int *fd) noexcept nogil:
    if fd[0] >= 0:
        close(fd[0])
    fd[0] = -1


cdef int random_bytes(void *out, size_t size) noexcept nogil:
    cdef ssize_t got
    while True:
        got = getrandom(out, size, 0)
        if got == <ssize_t>size:
            return 0
        if got < 0 and errno != EINTR:
            return errno


cdef int zero_fill(int fd, uint64_t size, int *hurry) noexcept nogil:
    """Write zeros in steps, until `hurry` is set (NULL: to the end)."""
    cdef uint64_t start = 0
    cdef uint64_t stop
    cdef int status = 0
    while start < size and status == 0 and (hurry == NULL or not load_acquire(hurry, ACQUIRE)):
        stop = min(start + SYNC_EVERY_BYTES, size)
        status = failpoint(AT_SEGMENT_ZEROS) or write_zeros(fd, start, stop)
        # In small steps, so that an append on the same disk never waits behind a whole segment of zeros.
        if status == 0:
            status = sync_data(fd)
        start = stop
    return status


cdef int create_ready(int directory, ReadyFile *file, int *hurry) noexcept nogil:
    cdef char name[NAME_BYTES]
    cdef int status
    ready_name(name, file.serial)
    file.recycled = False
    status = failpoint(AT_SEGMENT_CREATE)
    if status:
        return status
    file.fd = openat(directory, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o640)
    if file.fd < 0:
        return errno
    # Without space this fails at once, before a retry has filled the disk with zeros again.
    status = failpoint(AT_SEGMENT_ALLOCATE)
    if status == 0:
        status = 0 if fallocate(file.fd, 0, 0, <off_t>file.size) == 0 else errno
    if status == EOPNOTSUPP or status == ENOSYS:
        status = 0
        hurry = NULL
    if status == 0:
        status = zero_fill(file.fd, file.size, hurry)    # fallocate alone makes every first write as slow as growing
    if status == 0:
        status = failpoint(AT_SEGMENT_SYNC) or sync_all(file.fd)
    if status:
        close_file(&file.fd)
        remove_file(directory, name)
    return status


cdef void *prepare_run(void *argument) noexcept nogil:
    cdef Preparation *preparation = <Preparation *>argument
    preparation.status = create_ready(preparation.directory, &preparation.file, &preparation.hurry)
    store_release(&preparation.done, 1, RELEASE)
    return NULL


cdef int prepare_start(Preparation *preparation, int directory, uint32_t serial, uint64_t size) noexcept nogil:
    cdef int status
    memset(preparation, 0, sizeof(Preparation))
    preparation.directory = directory
    preparation.file.serial = serial
    preparation.file.size = size
    preparation.file.fd = -1
    status = pthread_create(&preparation.thread, NULL, prepare_run, preparation)
    preparation.running = status == 0
    return status


cdef bint prepare_done(Preparation *preparation) noexcept nogil:
    return preparation.running and load_acquire(&preparation.done, ACQUIRE) != 0


cdef void prepare_hurry(Preparation *preparation) noexcept nogil:
    store_release(&preparation.hurry, 1, RELEASE)


cdef int prepare_finish(Preparation *preparation, ReadyFile *file) noexcept nogil:
    pthread_join(preparation.thread, NULL)
    preparation.running = False
    file[0] = preparation.file
    return preparation.status


cdef void segment_head_seal(SegmentHead *head) noexcept nogil:
    head.magic = SEGMENT_MAGIC
    head.format = WAL_FORMAT
    head.crc = crc32c(0, <const uint8_t *>head, sizeof(SegmentHead) - 4)


cdef bint segment_head_valid(const SegmentHead *head) noexcept nogil:
    return head.magic == SEGMENT_MAGIC and head.crc == crc32c(0, <const uint8_t *>head, sizeof(SegmentHead) - 4)


cdef void record_head_seal(RecordHead *head) noexcept nogil:
    head.crc = crc32c(0, <const uint8_t *>head + 4, RECORD_HEAD_BYTES - 4)


cdef bint record_head_valid(const uint8_t *at, uint64_t position, uint64_t generation, uint64_t room) noexcept nogil:
    cdef const RecordHead *head = <const RecordHead *>at
    if room < RECORD_HEAD_BYTES or head.position != position or head.generation != generation:
        return False
    if head.length > VALUE_BYTES_MAX or record_bytes(head.length) > room:
        return False
    return head.crc == crc32c(0, at + 4, RECORD_HEAD_BYTES - 4)
