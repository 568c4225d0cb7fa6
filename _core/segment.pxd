# Files of the log: writing all of something, zero-filled files, and what makes a head or a record valid.
# Everything returns 0 or an errno and never takes the GIL.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from paxos._core.wal_format cimport RecordHead, SegmentHead

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef enum:
    NAME_BYTES = 40

# A file that is ready to become a segment: it has its full size and no name in the log yet.
cdef struct ReadyFile:
    int fd
    uint32_t serial                  # part of its present name
    uint64_t size
    bint recycled                    # not zeros: an earlier use shows through

# A thread that zero-fills the next file. Owned by one Wal; both threads touch `done` and `hurry` only.
cdef struct Preparation:
    pthread_t thread
    int directory
    int done                         # set last by the thread, atomically
    int hurry                        # set by the owner, atomically: it waits, so leave the rest unwritten
    int status
    bint running
    ReadyFile file

cdef void segment_name(char *name, uint64_t number) noexcept nogil
cdef void ready_name(char *name, uint32_t serial) noexcept nogil

# Write all parts at `offset`; short writes and EINTR are carried on, `parts` is used up.
cdef int write_parts(int fd, iovec *parts, size_t count, int64_t offset) noexcept nogil
cdef int write_zeros(int fd, uint64_t start, uint64_t stop) noexcept nogil
# Read exactly `size` bytes; EBADMSG if the file ends before.
cdef int read_bytes(int fd, uint8_t *out, uint64_t size, int64_t offset) noexcept nogil
# fdatasync, fsync: called once, never repeated after a failure.
cdef int sync_data(int fd) noexcept nogil
cdef int sync_all(int fd) noexcept nogil
cdef int open_segment(int directory, uint64_t number, bint writable, int *fd) noexcept nogil
cdef int open_ready(int directory, uint32_t serial, int *fd) noexcept nogil
cdef int file_size(int fd, uint64_t *size) noexcept nogil
cdef int rename_file(int directory, const char *before, const char *after) noexcept nogil
cdef int remove_file(int directory, const char *name) noexcept nogil
cdef void close_file(int *fd) noexcept nogil
cdef int random_bytes(void *out, size_t size) noexcept nogil

# Create and zero-fill `file.size` bytes under the ready name of `file.serial`, durably. Leaves nothing on failure.
# Once `hurry` is set the rest is only allocated, where the file system can: it reads as zeros all the same, and
# its first writes are a little slower, but nobody waits for a whole segment to be written.
cdef int create_ready(int directory, ReadyFile *file, int *hurry) noexcept nogil
# The same on a thread of its own, and what came of it (waits for it).
cdef int prepare_start(Preparation *preparation, int directory, uint32_t serial, uint64_t size) noexcept nogil
cdef bint prepare_done(Preparation *preparation) noexcept nogil
cdef void prepare_hurry(Preparation *preparation) noexcept nogil
cdef int prepare_finish(Preparation *preparation, ReadyFile *file) noexcept nogil

cdef void segment_head_seal(SegmentHead *head) noexcept nogil
cdef bint segment_head_valid(const SegmentHead *head) noexcept nogil
cdef void record_head_seal(RecordHead *head) noexcept nogil
# True if `at` holds the header of a record that was written here, in this use of the segment, and whose
# value ends within `room` bytes.
cdef bint record_head_valid(const uint8_t *at, uint64_t position, uint64_t generation, uint64_t room) noexcept nogil
