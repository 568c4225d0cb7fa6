# Files that wait to become segments, so that a full segment never makes a commit wait for zeros: one is
# zero-filled ahead by a thread of its own, old segments are kept for reuse, and a small reserve is the last
# segment of a full disk. One owner, the log; only the thread inside `preparation` runs beside it.

from libc.stdint cimport uint32_t, uint64_t

from paxos._core.segment cimport Preparation, ReadyFile

cdef enum:
    READY_MAX = 8            # files waiting to become segments

cdef class SegmentPool:
    # No file could be made: what is left is the room of the present segment and the reserve.
    cdef bint space_low
    cdef bint has_reserve
    cdef int ready_count
    cdef uint64_t wait_count         # times that a file was still being made when it was needed
    cdef int fail_space              # tests: make no file, for this errno

    cdef int pid                     # of the process that made it
    cdef int directory               # of the segments; borrowed from the log
    cdef uint64_t segment_bytes      # usual size of a segment
    cdef ReadyFile ready[READY_MAX]
    cdef uint32_t serial             # of the last file that was named
    cdef Preparation preparation

    # Use again what an earlier run made ready in `path`; unknown leftovers are removed. Needs the GIL.
    cdef object adopt(self, str path)
    # Have a file of at least `least` bytes, `usual` if it must be made. A failure changes nothing.
    cdef int get(self, uint64_t least, uint64_t usual) noexcept nogil
    # True if such a file is there; take it out.
    cdef bint has(self, uint64_t least) noexcept nogil
    cdef ReadyFile take(self, uint64_t least) noexcept nogil
    # Begin to make what is missing: the next segment if `wanted`, then the reserve. Never blocks.
    cdef void prepare_ahead(self, bint wanted, uint64_t usual) noexcept nogil
    # An old segment's file: kept if it has at least `usual` bytes and few are waiting, else removed.
    cdef void reuse(self, uint64_t number, uint64_t usual) noexcept nogil
    # Join the thread (a forked child has none) and close every file.
    cdef void shut(self) noexcept nogil

    cdef int _find(self, uint64_t least) noexcept nogil
    cdef int _take_reserve(self, uint64_t least, ReadyFile *file) noexcept nogil
    cdef void _keep(self, ReadyFile file) noexcept nogil
    cdef void _collect(self, bint wait) noexcept nogil
