# Everything that passes between the reactor and Python threads, one small locked structure each:
#
#   Mailbox      intents        any thread → reactor
#   ColdQueue    cold frames    reactor → control thread, bounded
#   ChosenQueue  chosen slots   reactor → apply thread or a blocking proposer, bounded in bytes
#
# The reactor holds a lock only for a few instructions and never waits for room: what does not fit is dropped
# and counted (cold frames: the protocol repeats them) or let go of and read again later (chosen values: they
# are in the log).

from libc.stdint cimport uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.effects cimport Chosen, Outgoing
from paxos._core.intent cimport Intent
from paxos._core.wakeup cimport Gate, Waker
from paxos._core.wal cimport Wal

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef enum:
    COLD_FRAMES_MAX = 4096           # in the queue
    COLD_FRAMES_OWN = 64             # ... of which this many places are kept for the node's own
    COLD_BYTES_MAX = 64 << 20
    TAKE_BYTES_MAX = 16 << 20        # values handed to one take_chosen
    APPLY_GRACE_US = 1000            # a woken proposer that has not applied by then has lost its turn

cdef class Mailbox:
    cdef pthread_mutex_t mutex
    cdef Intent *first               # guarded by mutex
    cdef Intent *last                # guarded by mutex
    cdef uint32_t count              # written under mutex, read anywhere

    cdef void put(self, Intent *intent) noexcept nogil      # takes it over
    cdef Intent *take_all(self) noexcept nogil              # oldest first, linked by `next`
    cdef bint has_mail(self) noexcept nogil

cdef class ColdQueue:
    cdef pthread_mutex_t mutex
    cdef Gate gate
    cdef Outgoing *ring              # COLD_FRAMES_MAX of them, guarded by mutex
    cdef uint32_t head               # guarded by mutex
    cdef uint32_t count              # guarded by mutex
    cdef size_t bytes                # guarded by mutex
    cdef uint32_t closed
    cdef uint64_t queued
    cdef uint64_t dropped
    cdef uint64_t replaced

    cdef void put(self, const Outgoing *frame) noexcept nogil   # takes over the payload's reference
    cdef void close(self) noexcept nogil
    # The oldest frame; False if there is none. The caller owns the payload's reference.
    cdef bint pop(self, Outgoing *frame) noexcept nogil
    cdef bint _replace_summary(self, const Outgoing *frame) noexcept nogil
    cdef object take(self, object timeout_s)

# A thread that waits for its own ticket. It lives on that thread's stack; `word` is its futex.
cdef struct Waiter:
    uint64_t ticket
    uint32_t word                    # 1: due. The publisher touches the Waiter for the last time by setting it
    bint linked                      # guarded by the queue's mutex
    Waiter *next
    Waiter *previous

cdef class ChosenQueue:
    cdef pthread_mutex_t mutex
    cdef Gate gate                   # the apply thread
    cdef Waker waker                 # the reactor, which may be held back by unapplied bytes
    cdef Wal wal                     # where values that were let go are read again
    cdef uint32_t origin             # whose tickets are waited for
    cdef uint64_t incarnation
    cdef Chosen *ring                # guarded by mutex; capacity is a power of two
    cdef size_t capacity
    cdef size_t head
    cdef size_t tail
    cdef size_t unapplied            # bytes of values (and entries) in the queue
    cdef size_t held                 # ... of values that are in memory for it
    cdef size_t unapplied_bytes_max
    cdef uint32_t count              # written under mutex, read anywhere
    cdef uint32_t held_back          # the reactor waits for `unapplied` to fall
    cdef uint32_t closed
    cdef uint64_t own_upto           # own tickets up to it are in the queue or were taken; read anywhere
    cdef uint64_t last_slot
    cdef uint64_t grace_us           # time from which the apply thread must be woken after all; 0: no need
    cdef Waiter *waiters             # guarded by mutex, in ticket order
    cdef Waiter *last_waiter
    cdef uint64_t evicted
    cdef uint64_t combined           # publications that woke proposers instead of the apply thread
    cdef uint64_t published

    # Hand over `count` slots; takes over their references. False when memory is out.
    cdef bint publish(self, const Chosen *items, size_t count, uint64_t now_us) noexcept nogil
    cdef bint is_full(self) noexcept nogil
    # Wake the apply thread if a woken proposer did not come in time.
    cdef void check_grace(self, uint64_t now_us) noexcept nogil
    cdef void close(self) noexcept nogil
    # Wait until the batch with own `ticket` is in the queue: 1; 0 after `timeout_us` or when closed before.
    cdef bint wait_native(self, uint64_t ticket, uint64_t timeout_us) noexcept nogil
    cdef object wait(self, uint64_t ticket, object timeout_s)
    cdef object wait_filled(self, object timeout_s)
    cdef object take(self, object timeout_s, Py_ssize_t limit)

    cdef bint _push(self, const Chosen *item) noexcept nogil
    cdef bint _pop(self, Chosen *item) noexcept nogil
    cdef bint _link(self, Waiter *waiter) noexcept nogil
    cdef bint _unlink(self, Waiter *waiter) noexcept nogil
    cdef Waiter *_cut_due(self) noexcept nogil

cdef class ChosenItem:
    """One chosen slot on its way to the state machine."""
    cdef Chosen chosen               # holds one reference to its value, if that is in memory
    cdef Wal wal
    cdef object _commands

    cdef Buffer *_value(self) except NULL
