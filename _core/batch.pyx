"""Commands into batches, and batches back into commands."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EPIPE, ETIMEDOUT
from libc.stdint cimport INT64_MAX, int64_t, uint16_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from paxos._core.buffer cimport buffer_from_bytes, buffer_new, buffer_release, buffer_retain, buffer_view
from paxos._core.codec cimport BatchHead, batch_valid
from paxos._core.crc32c cimport crc32c
from paxos._core.wakeup cimport (
    SIGNAL_CHECK_US, WAKE_ALL, clock_us, gate_enter, gate_leave, gate_sleep, gate_wake, load32, load64,
    store32, store64, timeout_to_us,
)

from collections.abc import Sequence

from paxos.errors import Busy, Closed, ConfigError

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef enum:
    HEAD = 32                   # sizeof(BatchHead)
    LENGTH = 4                  # before each command
    OPEN_BYTES_MIN = 4096       # smallest buffer in which commands gather
    BUILD_APART_BYTES = 65536   # more than this is copied before the lock is taken
    APPEND_ATTEMPTS = 100       # with room for the command each time

assert sizeof(BatchHead) == HEAD


cdef void link(BatchList *batches, Buffer *buffer, uint32_t count) noexcept nogil:
    cdef BatchHead *head = <BatchHead *>buffer.data
    head.count = count
    buffer.owner[0] = 0
    if batches.last == NULL:
        batches.first = buffer
    else:
        batches.last.owner[0] = <unsigned long long><size_t>buffer
    batches.last = buffer
    batches.commands += count
    batches.bytes += buffer.size


cdef inline Buffer *next_of(Buffer *buffer) noexcept nogil:
    return <Buffer *><size_t>buffer.owner[0]


cdef void release_all(BatchList *batches) noexcept nogil:
    cdef Buffer *buffer = batches.first
    cdef Buffer *following
    while buffer != NULL:
        following = next_of(buffer)
        buffer_release(buffer)
        buffer = following
    memset(batches, 0, sizeof(BatchList))


cdef Buffer *new_batch(size_t capacity) noexcept nogil:
    cdef Buffer *buffer = buffer_new(capacity)
    if buffer != NULL:
        memset(buffer.data, 0, HEAD)
        buffer.size = HEAD
    return buffer


cdef inline void put(Buffer *buffer, const uint8_t *data, size_t size) noexcept nogil:
    """Add one command to a buffer that has room for it."""
    cdef uint32_t length = <uint32_t>size
    memcpy(buffer.data + buffer.size, &length, LENGTH)
    memcpy(buffer.data + buffer.size + LENGTH, data, size)
    buffer.size += LENGTH + size


cdef bint build(
    BatchList *built, const uint8_t **items, const size_t *sizes, size_t count, size_t batch_bytes_max
) noexcept nogil:
    """Copy `count` commands into sealed batches; False when memory is out (nothing is kept)."""
    cdef size_t first = 0
    cdef size_t upto, bytes_used, i
    cdef Buffer *buffer
    while first < count:
        bytes_used = HEAD + LENGTH + sizes[first]
        upto = first + 1
        while upto < count and bytes_used + LENGTH + sizes[upto] <= batch_bytes_max:
            bytes_used += LENGTH + sizes[upto]
            upto += 1
        buffer = new_batch(bytes_used)
        if buffer == NULL:
            release_all(built)
            return False
        for i in range(first, upto):
            put(buffer, items[i], sizes[i])
        link(built, buffer, <uint32_t>(upto - first))
        first = upto
    return True


@cython.final
cdef class Batcher:
    """Gather commands of many threads into batches, numbered by consecutive tickets 1, 2, 3 ...

    Args:
        origin: node id, written into every batch.
        incarnation: of this start of the node; tickets are unique per (origin, incarnation).
        batch_bytes_max: a batch is sealed before it would exceed this; a larger command travels alone.
        command_bytes_max: larger commands are refused.
        pending_bytes_max: bytes that may wait to be taken. One command, or one run of ``append_many``,
            that alone is larger is accepted when nothing else waits.

    Guarantee: batches are taken in ticket order and hold every command whose ticket was returned, once.
    """

    def __cinit__(
        self,
        unsigned int origin,
        unsigned long long incarnation,
        *,
        size_t batch_bytes_max = 1 << 20,
        size_t command_bytes_max = 8 << 20,
        size_t pending_bytes_max = 64 << 20,
    ):
        if not 1 <= origin <= 0xFFFF:
            raise ConfigError(f"a node id is 1 to 65535, not {origin}")
        if command_bytes_max > 1 << 27 or batch_bytes_max > 1 << 27:
            raise ConfigError("command_bytes_max and batch_bytes_max are at most 128 MiB")
        pthread_mutex_init(&self.mutex, NULL)
        self.origin = origin
        self.incarnation = incarnation
        self.batch_bytes_max = batch_bytes_max
        self.command_bytes_max = command_bytes_max
        self.pending_bytes_max = pending_bytes_max
        self.waker = Waker()
        self.next_ticket = 1

    def __dealloc__(self):
        release_all(&self.sealed)
        buffer_release(self.open)
        pthread_mutex_destroy(&self.mutex)

    cdef bint _has_room(self, size_t size) noexcept nogil:
        cdef uint64_t pending = load64(&self.pending)
        return pending == 0 or pending + size <= self.pending_bytes_max

    cdef void _seal_open(self) noexcept nogil:
        if self.open == NULL:
            return
        self.guess_bytes = self.open.size
        link(&self.sealed, self.open, self.open_count)
        self.open = NULL
        self.open_count = 0

    cdef bint _reserve(self, size_t size) noexcept nogil:
        """Make room for `size` bytes in one open batch (under the mutex); False when memory is out."""
        cdef size_t capacity
        cdef Buffer *moved
        if self.open != NULL and self.open.size + size > self.batch_bytes_max:
            self._seal_open()
        if self.open == NULL:
            # Under load one batch is about as large as the one before: no growing, no copying again.
            capacity = min(max(self.guess_bytes + self.guess_bytes // 4, <size_t>OPEN_BYTES_MIN), self.batch_bytes_max)
            capacity = max(capacity, HEAD + size)
            self.open = new_batch(capacity)
            if self.open == NULL:
                return False
            self.open_capacity = capacity
        if self.open.size + size > self.open_capacity:
            capacity = max(self.open.size + size, min(4 * self.open_capacity, self.batch_bytes_max))
            moved = <Buffer *>realloc(self.open, sizeof(Buffer) + capacity)
            if moved == NULL:
                return False
            moved.data = <uint8_t *>(moved + 1)
            self.open = moved
            self.open_capacity = capacity
        return True

    cdef bint _gather(self, const uint8_t *data, size_t size) noexcept nogil:
        """Copy one command into the open batch (under the mutex); False when memory is out."""
        if not self._reserve(LENGTH + size):
            return False
        put(self.open, data, size)
        self.open_count += 1
        return True

    cdef uint64_t _splice(self, BatchList *built) noexcept nogil:
        """Queue batches that were built apart (under the mutex); the ticket of their first command."""
        cdef uint64_t ticket = self.next_ticket
        self._seal_open()
        if self.sealed.last == NULL:
            self.sealed.first = built.first
        else:
            self.sealed.last.owner[0] = <unsigned long long><size_t>built.first
        self.sealed.last = built.last
        self.sealed.commands += built.commands
        self.sealed.bytes += built.bytes
        self.next_ticket += built.commands
        return ticket

    cdef uint64_t append_native(self, const uint8_t *data, size_t size) noexcept nogil:
        cdef uint64_t ticket = 0
        cdef BatchList built
        if size > self.command_bytes_max:
            return 0
        memset(&built, 0, sizeof(built))
        if size > BUILD_APART_BYTES:
            if load32(&self.closed) or not build(&built, &data, &size, 1, self.batch_bytes_max):
                return 0
        pthread_mutex_lock(&self.mutex)
        if not self.closed and self._has_room(LENGTH + size):
            if built.first != NULL:
                ticket = self._splice(&built)
                store64(&self.pending, self.pending + LENGTH + size)
            elif self._gather(data, size):
                ticket = self.next_ticket
                self.next_ticket += 1
                store64(&self.pending, self.pending + LENGTH + size)
        pthread_mutex_unlock(&self.mutex)
        if ticket:
            self.waker.wake()
        else:
            release_all(&built)
        return ticket

    cdef Buffer *take(self, uint32_t *crc) noexcept nogil:
        cdef Buffer *buffer
        cdef BatchHead *head
        cdef uint64_t freed
        if not load64(&self.pending):
            return NULL
        pthread_mutex_lock(&self.mutex)
        if self.sealed.first == NULL:
            self._seal_open()
        buffer = self.sealed.first
        if buffer == NULL:
            pthread_mutex_unlock(&self.mutex)
            return NULL
        self.sealed.first = next_of(buffer)
        if self.sealed.first == NULL:
            self.sealed.last = NULL
        head = <BatchHead *>buffer.data
        self.sealed.commands -= head.count
        self.sealed.bytes -= buffer.size
        freed = buffer.size - HEAD
        store64(&self.pending, self.pending - freed)
        pthread_mutex_unlock(&self.mutex)
        gate_wake(&self.room, WAKE_ALL)
        head.incarnation = self.incarnation
        head.first_ticket = self.taken_commands + 1
        head.stamp_ms = 0
        head.origin = <uint16_t>self.origin
        head.flags = 0
        self.taken_commands += head.count
        self.taken_batches += 1
        crc[0] = crc32c(0, buffer.data, buffer.size)
        return buffer

    cdef bint has_pending(self) noexcept nogil:
        return load64(&self.pending) != 0

    cdef int _wait_for_room(self, size_t size, object timeout_s) except -1:
        cdef int64_t timeout_us = timeout_to_us(timeout_s)
        cdef uint64_t deadline = clock_us() + <uint64_t>timeout_us
        cdef uint64_t now
        cdef uint32_t seen
        if timeout_us == 0:
            return ETIMEDOUT
        while True:
            now = clock_us()
            if now >= deadline:
                return ETIMEDOUT
            with nogil:
                seen = gate_enter(&self.room)
                # Read without the mutex: only a hint, the caller looks again under it.
                if not load32(&self.closed) and not self._has_room(size):
                    gate_sleep(&self.room, seen, <int64_t>min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
                gate_leave(&self.room)
            if load32(&self.closed):
                return EPIPE
            if self._has_room(size):
                return 0
            PyErr_CheckSignals()

    cdef void refuse(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        store32(&self.closed, 1)
        pthread_mutex_unlock(&self.mutex)
        gate_wake(&self.room, WAKE_ALL)
        self.waker.wake()

    def append(self, command: bytes, timeout_s: float | None = 0.0) -> int:
        """Copy ``command`` in and return its ticket.

        Args:
            timeout_s: seconds to wait, without the GIL, for room; None waits for ever. With room there is
                no wait, and the GIL is not released between taking the ticket and returning.

        Raises:
            TypeError: not bytes.
            ConfigError: over ``command_bytes_max``.
            Busy: no room within the time. Closed: after ``close()``. Nothing was taken.
        """
        cdef uint64_t ticket
        cdef size_t size
        cdef int refusals = 0
        if not PyBytes_CheckExact(command) and not isinstance(command, bytes):
            raise TypeError(f"a command is bytes, not {type(command).__name__}")
        size = PyBytes_GET_SIZE(command)
        if size > self.command_bytes_max:
            raise ConfigError(f"a command of {size} bytes is over the limit of {self.command_bytes_max} "
                              "(command_bytes_max)")
        while True:
            ticket = self.append_native(<const uint8_t *>PyBytes_AS_STRING(command), size)
            if ticket:
                return ticket
            if self._has_room(LENGTH + size):
                # Room came between the attempt and this look, or memory is out: only the latter stays so.
                refusals += 1
                if refusals > APPEND_ATTEMPTS:
                    raise MemoryError(f"no memory for a command of {size} bytes")
            self._refuse(1, LENGTH + size, timeout_s)

    def _refuse(self, count: int, size: int, timeout_s: float | None) -> None:
        """Say why ``count`` commands were not taken, or return when it is worth trying again."""
        cdef int error
        if load32(&self.closed):
            raise Closed("closed: no commands are taken any more")
        if self._has_room(size):
            return
        error = self._wait_for_room(size, timeout_s)
        if error == EPIPE:
            raise Closed("closed while waiting for room: the commands were not taken")
        if error == ETIMEDOUT:
            raise Busy(f"{load64(&self.pending)} bytes wait to be proposed; {count} commands of {size} bytes do "
                       f"not fit below pending_bytes_max = {self.pending_bytes_max}")

    def append_many(self, commands: Sequence[bytes], timeout_s: float | None = None) -> tuple[int, int]:
        """Copy a run of commands in; return ``(first ticket, count)``: the tickets are consecutive.

        All are checked before any is taken, and all or none are taken. A run longer than a batch spans
        several. Waits for room without the GIL.

        Raises:
            TypeError, ConfigError, Busy, Closed: as ``append``, naming the offending command.
        """
        cdef tuple items = tuple(commands)
        cdef Py_ssize_t count = len(items)
        cdef Py_ssize_t i
        cdef size_t size
        cdef size_t total = 0
        if count == 0:
            return self.next_ticket, 0
        for i in range(count):
            command = items[i]
            if not PyBytes_CheckExact(command) and not isinstance(command, bytes):
                raise TypeError(f"command {i} of the run is {type(command).__name__}, not bytes")
            size = PyBytes_GET_SIZE(command)
            if size > self.command_bytes_max:
                raise ConfigError(f"command {i} of the run has {size} bytes, over the limit of "
                                  f"{self.command_bytes_max} (command_bytes_max)")
            total += LENGTH + size
        if total > BUILD_APART_BYTES or HEAD + total > self.batch_bytes_max:
            return self._append_built(items, total, timeout_s), count
        return self._append_gathered(items, total, timeout_s), count

    def _append_gathered(self, tuple items, size_t total, timeout_s: float | None) -> int:
        """Copy a short run under the lock, into the batch that is gathering."""
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(items)
        cdef uint64_t ticket = 0
        while True:
            pthread_mutex_lock(&self.mutex)
            # After the reservation nothing can fail, so the run is taken as a whole.
            if not self.closed and self._has_room(total) and self._reserve(total):
                for i in range(count):
                    put(
                        self.open,
                        <const uint8_t *>PyBytes_AS_STRING(items[i]),
                        <size_t>PyBytes_GET_SIZE(items[i]),
                    )
                self.open_count += <uint32_t>count
                ticket = self.next_ticket
                self.next_ticket += <uint64_t>count
                store64(&self.pending, self.pending + total)
            pthread_mutex_unlock(&self.mutex)
            if ticket:
                break
            self._refuse(count, total, timeout_s)
        self.waker.wake()
        return ticket

    def _append_built(self, tuple items, size_t total, timeout_s: float | None) -> int:
        """Copy a long run into batches of its own without the GIL and the lock, then queue them."""
        cdef Py_ssize_t count = len(items)
        cdef Py_ssize_t i
        cdef uint64_t ticket = 0
        cdef BatchList built
        cdef bint done
        cdef const uint8_t **pointers = <const uint8_t **>malloc(<size_t>count * sizeof(uint8_t *))
        cdef size_t *sizes = <size_t *>malloc(<size_t>count * sizeof(size_t))
        memset(&built, 0, sizeof(built))
        try:
            if pointers == NULL or sizes == NULL:
                raise MemoryError(f"no memory for a run of {count} commands")
            if load32(&self.closed) or not self._has_room(total):
                self._refuse(count, total, timeout_s)
            for i in range(count):
                pointers[i] = <const uint8_t *>PyBytes_AS_STRING(items[i])
                sizes[i] = <size_t>PyBytes_GET_SIZE(items[i])
            with nogil:
                done = build(&built, pointers, sizes, <size_t>count, self.batch_bytes_max)
            if not done:
                raise MemoryError(f"no memory for {total} bytes of commands")
            while True:
                pthread_mutex_lock(&self.mutex)
                if not self.closed and self._has_room(total):
                    ticket = self._splice(&built)
                    store64(&self.pending, self.pending + total)
                pthread_mutex_unlock(&self.mutex)
                if ticket:
                    break
                self._refuse(count, total, timeout_s)
            memset(&built, 0, sizeof(built))
        finally:
            release_all(&built)
            free(pointers)
            free(sizes)
        self.waker.wake()
        return ticket

    def close(self) -> None:
        """Take no more commands; whoever waits for room gets ``Closed``. What was taken stays."""
        self.refuse()

    def take_value(self) -> bytes | None:
        """Remove and return the next BATCH value, or None. For tests, the simulator and tools; in
        production only the reactor takes."""
        cdef uint32_t crc
        cdef Buffer *buffer = self.take(&crc)
        if buffer == NULL:
            return None
        try:
            return PyBytes_FromStringAndSize(<const char *>buffer.data, <Py_ssize_t>buffer.size)
        finally:
            buffer_release(buffer)

    @property
    def pending_bytes(self) -> int:
        """Bytes of commands that were not taken yet."""
        return load64(&self.pending)

    @property
    def last_ticket(self) -> int:
        """The ticket given last; 0 before the first."""
        return self.next_ticket - 1

    @property
    def is_closed(self) -> bool:
        """True after ``close()``."""
        return load32(&self.closed) != 0


@cython.final
cdef class Commands:
    """The commands of one BATCH value, in order; ``bytes`` are made only for what is asked.

    >>> from paxos._core.codec import encode_batch
    >>> commands = Commands(encode_batch([b"a", b"bc", b""], origin=1, incarnation=7, first_ticket=3))
    >>> len(commands), commands[1], commands[-1], list(commands), commands[:2]
    (3, b'bc', b'', [b'a', b'bc', b''], [b'a', b'bc'])

    Raises:
        ValueError: the bytes are not a complete batch.
    """

    def __init__(self, const uint8_t[::1] value not None):
        cdef Buffer *buffer = buffer_from_bytes(value)
        cdef Buffer *old = self.buffer
        cdef BatchHead head
        if not batch_valid(buffer.data, buffer.size, &head):
            buffer_release(buffer)
            raise ValueError(f"{value.shape[0]} bytes that are not a complete batch")
        if old != NULL:
            buffer_release(buffer)
            raise TypeError("Commands are immutable")
        self._adopt(buffer, &head)

    def __dealloc__(self):
        buffer_release(self.buffer)
        free(self.offsets)

    def __len__(self) -> int:
        return self.count

    cdef bytes _at(self, size_t offset):
        cdef uint32_t length
        memcpy(&length, self.buffer.data + offset, LENGTH)
        return PyBytes_FromStringAndSize(<const char *>self.buffer.data + offset + LENGTH, length)

    cdef size_t _offset_of(self, Py_ssize_t index) except 0:
        """Offset of the length field of command `index`, which is in range."""
        cdef size_t offset = HEAD
        cdef uint32_t length
        cdef Py_ssize_t i
        if index == 0:
            return HEAD
        if self.offsets == NULL:
            self.offsets = <size_t *>malloc(<size_t>self.count * sizeof(size_t))
            if self.offsets == NULL:
                raise MemoryError(f"no memory for the offsets of {self.count} commands")
            for i in range(self.count):
                self.offsets[i] = offset
                memcpy(&length, self.buffer.data + offset, LENGTH)
                offset += LENGTH + length
        return self.offsets[index]

    cdef void _adopt(self, Buffer *buffer, const BatchHead *head) noexcept:
        self.buffer = buffer
        self.origin = head.origin
        self.incarnation = head.incarnation
        self.first_ticket = head.first_ticket
        self.count = head.count

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        cdef Py_ssize_t at
        if isinstance(index, slice):
            return [self._at(self._offset_of(at)) for at in range(*index.indices(self.count))]
        at = index
        if at < 0:
            at += self.count
        if not 0 <= at < self.count:
            raise IndexError(f"command {index} of {self.count}")
        return self._at(self._offset_of(at))

    def __iter__(self) -> CommandsIterator:
        cdef CommandsIterator iterator = CommandsIterator.__new__(CommandsIterator)
        iterator.commands = self
        iterator.left = self.count
        iterator.offset = HEAD
        return iterator

    def memoryviews(self) -> list[memoryview]:
        """Return one read-only view per command; nothing is copied, the value lives as long as a view."""
        cdef size_t offset = HEAD
        cdef uint32_t length
        whole = memoryview(buffer_view(buffer_retain(self.buffer)))
        views = []
        for _ in range(self.count):
            memcpy(&length, self.buffer.data + offset, LENGTH)
            offset += LENGTH
            views.append(whole[offset:offset + length])
            offset += length
        return views

    def __repr__(self) -> str:
        return f"Commands(count={self.count}, first_ticket={self.first_ticket}, origin={self.origin})"


@cython.final
cdef class CommandsIterator:
    cdef Commands commands
    cdef Py_ssize_t left
    cdef size_t offset

    def __iter__(self) -> CommandsIterator:
        return self

    def __length_hint__(self) -> int:
        return self.left

    def __next__(self) -> bytes:
        cdef bytes command
        if self.left == 0:
            raise StopIteration
        command = self.commands._at(self.offset)
        self.offset += LENGTH + <size_t>PyBytes_GET_SIZE(command)
        self.left -= 1
        return command


cdef Commands commands_of(Buffer *buffer):
    cdef Commands commands
    cdef BatchHead head
    if not batch_valid(buffer.data, buffer.size, &head):
        size = buffer.size
        buffer_release(buffer)
        raise ValueError(f"{size} bytes that are not a complete batch")
    commands = Commands.__new__(Commands)
    commands._adopt(buffer, &head)
    return commands


Sequence.register(Commands)
