"""The queues between the reactor and the Python threads of a node."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EBADMSG
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset, strerror

from paxos._core.batch cimport commands_of
from paxos._core.buffer cimport buffer_bytes, buffer_new, buffer_release, buffer_retain
from paxos._core.codec cimport BATCH, CHOSEN, HEADER_BYTES, ROUND_CLOSED, STOPPED_LEADING
from paxos._core.failpoint cimport AT_CALLERS_WAKE, AT_CONTROL_QUEUE, failpoint
from paxos._core.intent cimport intent_free
from paxos._core.wakeup cimport (
    SIGNAL_CHECK_US, WAKE_ALL, clock_us, futex_wait, futex_wake, gate_enter, gate_leave, gate_sleep, gate_wake,
    load32, load64, store32, store64, timeout_to_us,
)

from paxos.errors import StorageError

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)


@cython.final
cdef class Mailbox:
    """Intents of any thread, for the reactor."""

    def __cinit__(self):
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        cdef Intent *intent = self.take_all()
        cdef Intent *following
        while intent != NULL:
            following = intent.next
            intent_free(intent)
            intent = following
        pthread_mutex_destroy(&self.mutex)

    cdef void put(self, Intent *intent) noexcept nogil:
        intent.next = NULL
        pthread_mutex_lock(&self.mutex)
        if self.last == NULL:
            self.first = intent
        else:
            self.last.next = intent
        self.last = intent
        store32(&self.count, self.count + 1)
        pthread_mutex_unlock(&self.mutex)

    cdef Intent *take_all(self) noexcept nogil:
        cdef Intent *intents
        pthread_mutex_lock(&self.mutex)
        intents = self.first
        self.first = NULL
        self.last = NULL
        store32(&self.count, 0)
        pthread_mutex_unlock(&self.mutex)
        return intents

    cdef bint has_mail(self) noexcept nogil:
        return load32(&self.count) != 0


@cython.final
cdef class ColdQueue:
    """Frames for the control thread. Bounded: beyond the bound a peer's frame is dropped, and the node's own
    summary of a heartbeat round takes the place of an older one."""

    def __cinit__(self):
        pthread_mutex_init(&self.mutex, NULL)
        self.ring = <Outgoing *>calloc(COLD_FRAMES_MAX, sizeof(Outgoing))
        if self.ring == NULL:
            raise MemoryError("no memory for the queue of cold frames")

    def __dealloc__(self):
        cdef Outgoing frame
        if self.ring != NULL:
            while self.pop(&frame):
                buffer_release(frame.payload)
        free(self.ring)
        pthread_mutex_destroy(&self.mutex)

    cdef bint _replace_summary(self, const Outgoing *frame) noexcept nogil:
        """Put a newer ROUND_CLOSED in the place of the newest that waits (under the mutex)."""
        cdef uint32_t i
        cdef Outgoing *old
        for i in range(self.count):
            old = &self.ring[(self.head + self.count - 1 - i) % COLD_FRAMES_MAX]
            if old.header.kind == ROUND_CLOSED:
                if old.payload != NULL:
                    self.bytes -= old.payload.size
                buffer_release(old.payload)
                old[0] = frame[0]
                if frame.payload != NULL:
                    self.bytes += frame.payload.size
                return True
        return False

    cdef void put(self, const Outgoing *frame) noexcept nogil:
        # CHOSEN: a configuration that this node has learned. It is said once, so a flood must not drown it.
        cdef bint own = (
            frame.header.kind == ROUND_CLOSED or frame.header.kind == STOPPED_LEADING or frame.header.kind == CHOSEN
        )
        cdef uint32_t places = COLD_FRAMES_MAX if own else COLD_FRAMES_MAX - COLD_FRAMES_OWN
        cdef size_t size = frame.payload.size if frame.payload != NULL else 0
        cdef bint taken = True
        failpoint(AT_CONTROL_QUEUE)
        pthread_mutex_lock(&self.mutex)
        if self.count >= COLD_FRAMES_MAX - COLD_FRAMES_OWN and frame.header.kind == ROUND_CLOSED and \
                self._replace_summary(frame):
            self.replaced += 1
        elif self.count < places and (own or self.bytes + size <= COLD_BYTES_MAX):
            self.ring[(self.head + self.count) % COLD_FRAMES_MAX] = frame[0]
            store32(&self.count, self.count + 1)
            self.bytes += size
            self.queued += 1
        else:
            self.dropped += 1
            taken = False
        pthread_mutex_unlock(&self.mutex)
        if taken:
            gate_wake(&self.gate, 1)
        else:
            buffer_release(frame.payload)

    cdef bint pop(self, Outgoing *frame) noexcept nogil:
        cdef bint found
        pthread_mutex_lock(&self.mutex)
        found = self.count != 0
        if found:
            frame[0] = self.ring[self.head]
            self.head = (self.head + 1) % COLD_FRAMES_MAX
            store32(&self.count, self.count - 1)
            if frame.payload != NULL:
                self.bytes -= frame.payload.size
        pthread_mutex_unlock(&self.mutex)
        return found

    cdef void close(self) noexcept nogil:
        store32(&self.closed, 1)
        gate_wake(&self.gate, WAKE_ALL)

    cdef object take(self, object timeout_s):
        """All waiting frames; [] after `timeout_s` without one; None once closed and empty."""
        cdef uint64_t deadline = clock_us() + <uint64_t>timeout_to_us(timeout_s)
        cdef uint64_t now
        cdef uint32_t seen
        cdef Outgoing frame
        cdef list frames = []
        while True:
            while self.pop(&frame):
                data = (<const uint8_t *>&frame.header)[:HEADER_BYTES]
                if frame.payload != NULL:
                    data += buffer_bytes(frame.payload)
                    buffer_release(frame.payload)
                frames.append(data)
            if frames:
                return frames
            if load32(&self.closed):
                return None
            now = clock_us()
            if now >= deadline:
                return frames
            with nogil:
                seen = gate_enter(&self.gate)
                if not load32(&self.count) and not load32(&self.closed):
                    gate_sleep(&self.gate, seen, <int64_t>min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
                gate_leave(&self.gate)
            PyErr_CheckSignals()


@cython.final
cdef class ChosenQueue:
    """Chosen slots, in order, for whoever applies them.

    Whoever waits for an own ticket is woken exactly when that ticket's batch is in the queue, and is expected
    to apply what is there; only if no such proposer is due is the apply thread woken.
    """

    def __cinit__(self, Waker waker not None, Wal wal not None, origin: int, incarnation: int,
                  size_t unapplied_bytes_max):
        pthread_mutex_init(&self.mutex, NULL)
        self.waker = waker
        self.wal = wal
        self.origin = origin
        self.incarnation = incarnation
        self.unapplied_bytes_max = unapplied_bytes_max
        self.capacity = 1024
        self.ring = <Chosen *>malloc(self.capacity * sizeof(Chosen))
        if self.ring == NULL:
            raise MemoryError("no memory for the queue of chosen slots")

    def __dealloc__(self):
        cdef Chosen item
        if self.ring != NULL:
            while self._pop(&item):
                buffer_release(item.value)
        free(self.ring)
        pthread_mutex_destroy(&self.mutex)

    cdef bint _push(self, const Chosen *item) noexcept nogil:
        """Add one slot (under the mutex); False when memory is out."""
        cdef Chosen *larger
        cdef Chosen *place
        cdef size_t i
        if self.tail - self.head == self.capacity:
            larger = <Chosen *>malloc(2 * self.capacity * sizeof(Chosen))
            if larger == NULL:
                return False
            for i in range(self.head, self.tail):
                larger[i & (2 * self.capacity - 1)] = self.ring[i & (self.capacity - 1)]
            free(self.ring)
            self.ring = larger
            self.capacity *= 2
        place = &self.ring[self.tail & (self.capacity - 1)]
        place[0] = item[0]
        if place.value != NULL:
            if place.position != 0 and self.held + place.value.size > self.unapplied_bytes_max:
                buffer_release(place.value)
                place.value = NULL
                self.evicted += 1
            else:
                self.held += place.value.size
        self.unapplied += place.length + sizeof(Chosen)
        self.tail += 1
        store32(&self.count, <uint32_t>(self.tail - self.head))
        self.last_slot = item.slot
        if item.origin == self.origin and item.incarnation == self.incarnation and item.index != 0:
            store64(&self.own_upto, item.first_ticket + item.count - 1)
        return True

    cdef bint _pop(self, Chosen *item) noexcept nogil:
        cdef bint found
        pthread_mutex_lock(&self.mutex)
        found = self.head != self.tail
        if found:
            item[0] = self.ring[self.head & (self.capacity - 1)]
            self.head += 1
            store32(&self.count, <uint32_t>(self.tail - self.head))
            self.unapplied -= item.length + sizeof(Chosen)
            if item.value != NULL:
                self.held -= item.value.size
            if self.head == self.tail:
                store64(&self.grace_us, 0)
        pthread_mutex_unlock(&self.mutex)
        return found

    cdef Waiter *_cut_due(self) noexcept nogil:
        """Unlink the waiters whose tickets are in the queue (under the mutex); their list."""
        cdef Waiter *due = self.waiters
        cdef Waiter *last = NULL
        cdef Waiter *waiter = due
        while waiter != NULL and waiter.ticket <= self.own_upto:
            waiter.linked = False
            last = waiter
            waiter = waiter.next
        if last == NULL:
            return NULL
        self.waiters = waiter
        if waiter == NULL:
            self.last_waiter = NULL
        else:
            waiter.previous = NULL
        last.next = NULL
        return due

    cdef bint publish(self, const Chosen *items, size_t count, uint64_t now_us) noexcept nogil:
        cdef size_t i
        cdef size_t pushed = 0
        cdef Waiter *due
        cdef Waiter *following
        pthread_mutex_lock(&self.mutex)
        while pushed < count and self._push(&items[pushed]):
            pushed += 1
        due = self._cut_due()
        if due != NULL:
            self.combined += 1
            if self.grace_us == 0:
                store64(&self.grace_us, now_us + APPLY_GRACE_US)
        self.published += 1
        pthread_mutex_unlock(&self.mutex)
        failpoint(AT_CALLERS_WAKE)
        for i in range(pushed, count):
            buffer_release(items[i].value)
        if due == NULL:
            gate_wake(&self.gate, WAKE_ALL)
        while due != NULL:
            following = due.next
            store32(&due.word, 1)
            # The waiter may be gone already; waking an address that nobody sleeps on does no harm.
            futex_wake(&due.word, 1)
            due = following
        return pushed == count

    cdef bint is_full(self) noexcept nogil:
        cdef bint full
        pthread_mutex_lock(&self.mutex)
        full = self.unapplied > self.unapplied_bytes_max
        store32(&self.held_back, full)
        pthread_mutex_unlock(&self.mutex)
        return full

    cdef void check_grace(self, uint64_t now_us) noexcept nogil:
        cdef bint late
        if load64(&self.grace_us) == 0:
            return
        pthread_mutex_lock(&self.mutex)
        late = self.grace_us != 0 and now_us >= self.grace_us and self.head != self.tail
        if late:
            store64(&self.grace_us, 0)
        pthread_mutex_unlock(&self.mutex)
        if late:
            gate_wake(&self.gate, WAKE_ALL)

    cdef void close(self) noexcept nogil:
        cdef Waiter *waiter
        cdef Waiter *following
        pthread_mutex_lock(&self.mutex)
        store32(&self.closed, 1)
        waiter = self.waiters
        self.waiters = NULL
        self.last_waiter = NULL
        following = waiter
        while following != NULL:
            following.linked = False
            following = following.next
        pthread_mutex_unlock(&self.mutex)
        gate_wake(&self.gate, WAKE_ALL)
        while waiter != NULL:
            following = waiter.next
            store32(&waiter.word, 1)
            futex_wake(&waiter.word, 1)
            waiter = following

    cdef bint _link(self, Waiter *waiter) noexcept nogil:
        """Line up in ticket order; False if there is nothing to wait for."""
        cdef Waiter *before
        cdef bint waits
        pthread_mutex_lock(&self.mutex)
        waits = self.own_upto < waiter.ticket and not self.closed
        if waits:
            before = self.last_waiter
            while before != NULL and before.ticket > waiter.ticket:
                before = before.previous
            waiter.previous = before
            waiter.next = self.waiters if before == NULL else before.next
            if before == NULL:
                self.waiters = waiter
            else:
                before.next = waiter
            if waiter.next == NULL:
                self.last_waiter = waiter
            else:
                waiter.next.previous = waiter
            waiter.linked = True
        pthread_mutex_unlock(&self.mutex)
        return waits

    cdef bint _unlink(self, Waiter *waiter) noexcept nogil:
        """Leave the line. False if the publisher has cut this waiter out: it will still set `word`."""
        cdef bint linked
        pthread_mutex_lock(&self.mutex)
        linked = waiter.linked
        if linked:
            if waiter.previous == NULL:
                self.waiters = waiter.next
            else:
                waiter.previous.next = waiter.next
            if waiter.next == NULL:
                self.last_waiter = waiter.previous
            else:
                waiter.next.previous = waiter.previous
            waiter.linked = False
        pthread_mutex_unlock(&self.mutex)
        return linked

    cdef bint wait_native(self, uint64_t ticket, uint64_t timeout_us) noexcept nogil:
        cdef Waiter waiter
        cdef uint64_t now = clock_us()
        cdef uint64_t deadline = now + timeout_us
        if load64(&self.own_upto) >= ticket:
            return True
        memset(&waiter, 0, sizeof(waiter))
        waiter.ticket = ticket
        if self._link(&waiter):
            while not load32(&waiter.word) and now < deadline:
                futex_wait(&waiter.word, 0, <int64_t>min(deadline - now, <uint64_t>INT64_MAX))
                now = clock_us()
            if not load32(&waiter.word) and not self._unlink(&waiter):
                while not load32(&waiter.word):
                    futex_wait(&waiter.word, 0, SIGNAL_CHECK_US)
        return load64(&self.own_upto) >= ticket

    cdef object wait(self, uint64_t ticket, object timeout_s):
        cdef uint64_t now = clock_us()
        cdef uint64_t deadline = now + <uint64_t>timeout_to_us(timeout_s)
        cdef bint due = load64(&self.own_upto) >= ticket
        while not due and now < deadline and not load32(&self.closed):
            with nogil:
                due = self.wait_native(ticket, min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
            if not due:
                PyErr_CheckSignals()
                now = clock_us()
        return due

    cdef object take(self, object timeout_s, Py_ssize_t limit):
        """Up to `limit` slots (fewer if they are large); [] after `timeout_s`; None once closed and empty."""
        cdef size_t size = 0
        cdef ChosenItem item
        cdef list items = []
        if self.wait_filled(timeout_s) is None:
            return None
        while len(items) < limit and size < TAKE_BYTES_MAX and load32(&self.count):
            item = ChosenItem.__new__(ChosenItem)
            if not self._pop(&item.chosen):
                break
            item.wal = self.wal
            size += item.chosen.length
            items.append(item)
        if load32(&self.held_back):
            self.waker.wake()
        return items

    cdef object wait_filled(self, object timeout_s):
        """True when there is something to apply and no proposer was woken for it; False after `timeout_s`;
        None once closed and empty."""
        cdef uint64_t deadline
        cdef uint64_t now
        cdef uint32_t seen
        if load32(&self.count) and not load64(&self.grace_us):
            return True
        now = clock_us()
        deadline = now + <uint64_t>timeout_to_us(timeout_s)
        while True:
            if load32(&self.closed):
                return True if load32(&self.count) else None
            if now >= deadline:
                return load32(&self.count) != 0
            with nogil:
                seen = gate_enter(&self.gate)
                # While a proposer was woken to apply, what waits is its business until its grace is over.
                if not load32(&self.closed) and (not load32(&self.count) or load64(&self.grace_us)):
                    gate_sleep(&self.gate, seen, <int64_t>min(deadline - now, <uint64_t>SIGNAL_CHECK_US))
                gate_leave(&self.gate)
            PyErr_CheckSignals()
            if load32(&self.count) and not load64(&self.grace_us):
                return True
            now = clock_us()


@cython.final
cdef class ChosenItem:
    """One chosen slot: what lies in it and which commands it brings.

    ``index`` is the number of its first command, 0 if there is nothing to apply (a no-op, a configuration, or
    a batch that was applied before). The value may have been let go to save memory; it is then read from the
    log when asked for.
    """

    def __cinit__(self):
        memset(&self.chosen, 0, sizeof(Chosen))

    def __dealloc__(self):
        buffer_release(self.chosen.value)

    cdef Buffer *_value(self) except NULL:
        """The value, read again if it was let go; borrowed."""
        cdef Buffer *buffer
        cdef int error
        if self.chosen.value != NULL:
            return self.chosen.value
        buffer = buffer_new(self.chosen.length)
        if buffer == NULL:
            raise MemoryError(f"no memory for the value of slot {self.chosen.slot}: {self.chosen.length} bytes")
        if self.chosen.length:
            with nogil:
                error = self.wal.read(
                    self.chosen.position, self.chosen.length, self.chosen.value_crc, buffer.data
                )
            if error:
                buffer_release(buffer)
                what = "it is damaged" if error == EBADMSG else strerror(error).decode()
                raise StorageError(f"cannot read the value of slot {self.chosen.slot} back from the log: {what}")
        if self.chosen.value != NULL:    # another thread was faster
            buffer_release(buffer)
            return self.chosen.value
        self.chosen.value = buffer
        return buffer

    @property
    def slot(self) -> int:
        return self.chosen.slot

    @property
    def index(self) -> int:
        return self.chosen.index

    @property
    def count(self) -> int:
        return self.chosen.count

    @property
    def kind(self) -> int:
        return self.chosen.kind

    @property
    def origin(self) -> int:
        return self.chosen.origin

    @property
    def incarnation(self) -> int:
        return self.chosen.incarnation

    @property
    def first_ticket(self) -> int:
        return self.chosen.first_ticket

    @property
    def position(self) -> int:
        return self.chosen.position

    @property
    def length(self) -> int:
        return self.chosen.length

    @property
    def value_crc(self) -> int:
        return self.chosen.value_crc

    @property
    def in_memory(self) -> bool:
        """False while the value is only in the log."""
        return self.chosen.value != NULL or self.chosen.length == 0

    @property
    def value(self) -> bytes:
        """The bytes of the value, copied.

        Raises:
            StorageError: it was let go and cannot be read back from the log.
        """
        return buffer_bytes(self._value())

    @property
    def commands(self) -> "Commands":
        """The commands of a batch, as a lazy sequence over the value; empty tuple for other kinds.

        Raises:
            StorageError: it was let go and cannot be read back from the log.
        """
        if self._commands is None:
            if self.chosen.kind == BATCH and self.chosen.count:
                self._commands = commands_of(buffer_retain(self._value()))
            else:
                self._commands = ()
        return self._commands

    def __repr__(self) -> str:
        return (
            f"ChosenItem(slot={self.slot}, index={self.index}, count={self.count}, kind={self.kind}, "
            f"origin={self.origin}, first_ticket={self.first_ticket})"
        )
