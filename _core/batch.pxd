# The Batcher turns commands from many threads into sealed BATCH values, in ticket order. No linger: whatever
# has gathered when the reactor asks is one batch, so batches grow by themselves under load.
#
# One mutex guards a list of sealed Buffers and the open one, all in the BATCH format (codec.BatchHead, then a
# uint32 length and its bytes for each command). A command is copied once, into the buffer that is later
# checksummed, logged, sent and applied. What needs long copying is built before the lock is taken, so the
# reactor never waits for it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport BatchHead
from paxos._core.wakeup cimport Gate, Waker

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

# Batches in order, linked through Buffer.owner[0] while they are in here.
cdef struct BatchList:
    Buffer *first
    Buffer *last
    uint64_t commands
    uint64_t bytes              # of the values, heads included

cdef class Batcher:
    cdef readonly Waker waker   # the reactor's; woken after every append
    cdef readonly unsigned int origin
    cdef readonly unsigned long long incarnation
    cdef readonly size_t batch_bytes_max
    cdef readonly size_t command_bytes_max
    cdef readonly size_t pending_bytes_max

    cdef pthread_mutex_t mutex
    cdef Gate room              # producers that wait for pending_bytes to fall
    cdef BatchList sealed       # guarded by mutex
    cdef Buffer *open           # guarded by mutex; size = bytes used; NULL when nothing gathers
    cdef uint32_t open_count    # guarded by mutex
    cdef size_t open_capacity   # guarded by mutex
    cdef size_t guess_bytes     # guarded by mutex: how large the next open buffer will probably become
    cdef uint64_t next_ticket   # guarded by mutex
    cdef uint64_t pending       # bytes not taken yet; written under mutex, read anywhere
    cdef uint32_t closed        # written under mutex, read anywhere
    cdef uint64_t taken_batches
    cdef uint64_t taken_commands

    # Copy one command in; its ticket (1, 2, 3 ...), or 0 when `pending_bytes_max` is reached, it is closed,
    # the command is over `command_bytes_max`, or memory is out.
    cdef uint64_t append_native(self, const uint8_t *data, size_t size) noexcept nogil
    # The oldest sealed batch, or what has gathered, or NULL. The caller owns the reference. Value = codec.BatchHead + commands.
    # `crc` receives the CRC-32C of the whole value.
    cdef Buffer *take(self, uint32_t *crc) noexcept nogil
    cdef bint has_pending(self) noexcept nogil
    # What close() does: take no more, wake whoever waits for room.
    cdef void refuse(self) noexcept nogil

    # True if `size` more bytes may come in now. A lone giant may always: it could never wait long enough.
    cdef bint _has_room(self, size_t size) noexcept nogil
    cdef bint _reserve(self, size_t size) noexcept nogil
    cdef bint _gather(self, const uint8_t *data, size_t size) noexcept nogil
    cdef void _seal_open(self) noexcept nogil
    cdef uint64_t _splice(self, BatchList *built) noexcept nogil
    # Wait without the GIL until `size` bytes fit; 0, ETIMEDOUT, or EPIPE when closed. Raises on a signal.
    cdef int _wait_for_room(self, size_t size, object timeout_s) except -1


cdef class Commands:
    """The commands of one BATCH value: a read-only sequence that makes `bytes` only when asked."""
    cdef Buffer *buffer         # one reference
    cdef readonly unsigned int origin
    cdef readonly unsigned long long incarnation
    cdef readonly unsigned long long first_ticket
    cdef Py_ssize_t count
    cdef size_t *offsets        # of each command's length field; built by the first random access

    cdef bytes _at(self, size_t offset)
    cdef size_t _offset_of(self, Py_ssize_t index) except 0
    cdef void _adopt(self, Buffer *buffer, const BatchHead *head) noexcept

# Takes over the caller's reference, also when it raises ValueError: not a complete batch.
cdef Commands commands_of(Buffer *buffer)
