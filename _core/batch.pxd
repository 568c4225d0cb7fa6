# The Batcher turns commands from many threads into sealed BATCH values, in ticket order. No linger: whatever
# has gathered when the reactor asks is one batch, so batches grow by themselves under load.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer

cdef class Batcher:
    # Copy one command in; its ticket (1, 2, 3 ...), or 0 when `pending_bytes_max` is reached or it is closed.
    cdef uint64_t append_native(self, const uint8_t *data, size_t size) noexcept nogil
    # The oldest sealed batch, or what has gathered, or NULL. The caller owns the reference. Value = codec.BatchHead + commands.
    # `crc` receives the CRC-32C of the whole value.
    cdef Buffer *take(self, uint32_t *crc) noexcept nogil
    cdef bint has_pending(self) noexcept nogil
