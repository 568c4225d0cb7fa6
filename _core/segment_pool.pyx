"""Files that wait to become segments of the write-ahead log."""

import os
import re

cimport cython
from libc.errno cimport ENOSPC
from posix.unistd cimport getpid

from paxos._core.failpoint cimport AT_RECYCLE_RENAME, AT_SEGMENT_RESERVE, failpoint
from paxos._core.segment cimport (
    NAME_BYTES, close_file, create_ready, file_size, open_ready, open_segment, prepare_done, prepare_finish,
    prepare_hurry, prepare_start, ready_name, remove_file, rename_file, segment_name,
)

cdef extern from "errno.h":
    int EDQUOT

cdef enum:
    RESERVE_BYTES = 1 << 20          # the last segment of a full disk
    RESERVE_SERIAL = 0
    REUSED_MAX = 2                   # old segments kept for reuse

READY_NAME = re.compile(r"ready-([0-9a-f]{8})\.segment")


@cython.final
cdef class SegmentPool:
    def __cinit__(self):
        self.directory = -1
        self.pid = getpid()

    def __dealloc__(self):
        self.shut()

    cdef object adopt(self, str path):
        """Use again what an earlier run had made ready in ``path``; unknown leftovers are removed."""
        for name in sorted(os.listdir(path)):
            match = READY_NAME.fullmatch(name)
            if not match:
                continue
            serial = int(match[1], 16)
            size = os.stat(os.path.join(path, name)).st_size
            if serial == RESERVE_SERIAL and size >= 4096:
                self.has_reserve = True
            elif self.ready_count < READY_MAX and 4096 <= size <= 1 << 31 and size % 8 == 0 and serial:
                self.ready[self.ready_count].fd = os.open(os.path.join(path, name), os.O_RDWR | os.O_CLOEXEC)
                self.ready[self.ready_count].serial = serial
                self.ready[self.ready_count].size = size
                self.ready[self.ready_count].recycled = True
                self.ready_count += 1
                self.serial = max(self.serial, serial)
            else:
                os.unlink(os.path.join(path, name))

    cdef int _find(self, uint64_t least) noexcept nogil:
        """Index of the file that `take` would give, or -1."""
        cdef int i
        for i in range(self.ready_count):
            if self.ready[i].size >= least:
                return i
        return -1

    cdef bint has(self, uint64_t least) noexcept nogil:
        return self._find(least) >= 0

    cdef ReadyFile take(self, uint64_t least) noexcept nogil:
        cdef int i
        cdef int found = self._find(least)
        cdef ReadyFile file = self.ready[found]
        self.ready_count -= 1
        for i in range(found, self.ready_count):
            self.ready[i] = self.ready[i + 1]
        return file

    cdef void _keep(self, ReadyFile file) noexcept nogil:
        """Keep a file for the next segment; the reserve is only noted."""
        if file.serial == RESERVE_SERIAL:
            close_file(&file.fd)
            self.has_reserve = True
        elif self.ready_count < READY_MAX:
            self.ready[self.ready_count] = file
            self.ready_count += 1
        else:
            close_file(&file.fd)

    cdef int get(self, uint64_t least, uint64_t usual) noexcept nogil:
        cdef ReadyFile file
        cdef int status
        # Whoever asks for more than the first file is in the middle of an append, and waits.
        cdef int hurry = self.serial != 0
        if self.has(least):
            return 0
        if self.preparation.running and self.preparation.file.size >= least:
            self.wait_count += 0 if prepare_done(&self.preparation) else 1
            self._collect(True)
            if self.has(least):
                return 0
        if self.ready_count == READY_MAX:        # all too small: the last one gives way
            self.ready_count -= 1
            close_file(&self.ready[self.ready_count].fd)
        self.serial += 1
        file.serial = self.serial
        file.size = max(usual, (least + 7) & ~(<uint64_t>7))
        file.fd = -1
        status = self.fail_space
        if status == 0:
            status = create_ready(self.directory, &file, &hurry)
        if status == ENOSPC or status == EDQUOT:
            self.space_low = True
            status = self._take_reserve(least, &file)
        if status == 0:
            self.ready[self.ready_count] = file
            self.ready_count += 1
        return status

    cdef int _take_reserve(self, uint64_t least, ReadyFile *file) noexcept nogil:
        if not self.has_reserve or open_ready(self.directory, RESERVE_SERIAL, &file.fd):
            return ENOSPC
        if file_size(file.fd, &file.size) or file.size < least:
            close_file(&file.fd)
            return ENOSPC
        failpoint(AT_SEGMENT_RESERVE)
        file.serial = RESERVE_SERIAL
        file.recycled = True
        self.has_reserve = False
        return 0

    cdef void _collect(self, bint wait) noexcept nogil:
        """Take over what the preparing thread has made, if it is done or `wait`."""
        cdef ReadyFile file
        if not self.preparation.running or not (wait or prepare_done(&self.preparation)):
            return
        prepare_hurry(&self.preparation)
        if prepare_finish(&self.preparation, &file):
            self.space_low = True
            return
        if file.serial != RESERVE_SERIAL:
            self.space_low = False
        self._keep(file)

    cdef void prepare_ahead(self, bint wanted, uint64_t usual) noexcept nogil:
        cdef uint32_t serial = RESERVE_SERIAL
        cdef uint64_t size = min(<uint64_t>RESERVE_BYTES, self.segment_bytes)
        self._collect(False)
        if self.preparation.running:
            return
        if self.ready_count == 0 and (self.space_low or wanted):
            self.serial += 1
            serial = self.serial
            size = usual
        elif self.has_reserve or self.space_low:
            return
        if self.fail_space or prepare_start(&self.preparation, self.directory, serial, size):
            self.space_low = True

    cdef void reuse(self, uint64_t number, uint64_t usual) noexcept nogil:
        cdef char before[NAME_BYTES]
        cdef char after[NAME_BYTES]
        cdef ReadyFile file
        segment_name(before, number)
        file.fd = -1
        file.recycled = True
        if self.ready_count < REUSED_MAX and open_segment(self.directory, number, True, &file.fd) == 0:
            self.serial += 1
            file.serial = self.serial
            ready_name(after, file.serial)
            if file_size(file.fd, &file.size) == 0 and file.size >= usual and (
                (failpoint(AT_RECYCLE_RENAME) or rename_file(self.directory, before, after)) == 0
            ):
                self._keep(file)
                return
            close_file(&file.fd)
        remove_file(self.directory, before)

    cdef void shut(self) noexcept nogil:
        cdef int i
        if getpid() == self.pid:
            self._collect(True)
        for i in range(self.ready_count):
            close_file(&self.ready[i].fd)
        self.ready_count = 0
