# CRC-32C (Castagnoli), as in RFC 3720: the checksum of every frame, record and value.

from libc.stdint cimport uint8_t, uint32_t

# Continue `crc` (0 to start) over `size` bytes. Uses the processor's instruction where there is one.
cdef uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t size) noexcept nogil
