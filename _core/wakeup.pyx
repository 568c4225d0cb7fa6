"""Waking a sleeping thread: the flag and the eventfd on which a reactor sleeps."""

cimport cython
from libc.stdint cimport INT64_MAX

from paxos.errors import ConfigError

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef extern from "<unistd.h>" nogil:
    ssize_t c_read "read"(int fd, void *data, size_t size)
    ssize_t c_write "write"(int fd, const void *data, size_t size)
    int c_close "close"(int fd)


@cython.final
cdef class Waker:
    def __cinit__(self):
        self.sleeping = 0
        self.wakes = 0
        self.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.fd < 0:
            raise OSError("no eventfd: is the limit on open files reached?")

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    cdef void wake(self) noexcept nogil:
        cdef uint64_t one = 1
        fence()
        if load32(&self.sleeping) and exchange32(&self.sleeping, 0):
            add64(&self.wakes, 1)
            # EAGAIN means that the counter is full, so the fd is readable already.
            c_write(self.fd, &one, sizeof(one))

    cdef void begin_sleep(self) noexcept nogil:
        exchange32(&self.sleeping, 1)

    cdef void end_sleep(self, bint readable) noexcept nogil:
        cdef uint64_t count
        exchange32(&self.sleeping, 0)
        # A waker may have lowered the flag and write only now; poll then reports it the next time.
        if readable:
            c_read(self.fd, &count, sizeof(count))


cdef int64_t timeout_to_us(object timeout_s) except -1:
    cdef double seconds
    if timeout_s is None:
        return INT64_MAX
    seconds = timeout_s
    if not seconds >= 0:
        raise ConfigError(f"a timeout must be a number of seconds >= 0, or None, not {timeout_s!r}")
    if seconds > 1e9:
        return INT64_MAX
    return <int64_t>(seconds * 1e6)
