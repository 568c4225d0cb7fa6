# The Python face of the log; the reactor sees only the Wal in it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.wal cimport Wal

cdef class WalFace(Wal):
    pass
