# The one thread that drives a node. It is created natively, never takes the GIL and never allocates Python
# objects: a host program that holds the GIL for seconds slows nobody's commits (docs/architecture.md).
#
# One pass: mailbox and sockets → engine → tick → own batches → and then exactly the order of effects.pxd.
# Between passes it sleeps in one poll. Before that it raises `waker.sleeping` and looks once more at every
# reason to run: mail, commands that may be taken, the end. Frames make the router's descriptor readable.

from libc.stdint cimport uint32_t, uint64_t

from paxos._core.batch cimport Batcher
from paxos._core.effects cimport OutgoingList
from paxos._core.engine cimport EngineCore
from paxos._core.handover cimport ChosenQueue, ColdQueue, Mailbox
from paxos._core.links cimport Links
from paxos._core.native_thread cimport pthread_t
from paxos._core.read_desk cimport ReadDesk
from paxos._core.wakeup cimport Gate, Waker
from paxos._core.wal cimport Wal

cdef enum:
    PASS_FRAMES_MAX = 512            # stepped before one sync
    PASS_BYTES_MAX = 1 << 20         # of payloads, and of own batches: heartbeats wait no longer than that
    DISK_FULL_RETRY_US = 50000
    SLEEP_US_MAX = 1000000
    SPIN_GAP_US = 100                # a yield that took longer gave the CPU to somebody who needs it
    SPIN_PAUSE_MAX = 1024
    FAULT_TEXT_BYTES = 200

# Reasons of the reactor, beside the engine's own (engine.Fault).
cdef enum:
    FAULT_SOCKET = 64

cdef enum ThreadState:
    THREAD_NEW = 0
    THREAD_RUNNING = 1
    THREAD_EXITED = 2                # left its loop, not joined
    THREAD_JOINED = 3

cdef struct Totals:
    uint64_t passes
    uint64_t spins
    uint64_t sleeps
    uint64_t frames
    uint64_t garbage
    uint64_t intents
    uint64_t batches
    uint64_t batch_bytes
    uint64_t ticks
    uint64_t records
    uint64_t syncs
    uint64_t sync_us                 # sum
    uint64_t sync_us_max
    uint64_t sent
    uint64_t not_sent
    uint64_t slots
    uint64_t disk_full
    uint64_t append_us_max
    uint64_t pass_us_max             # from waking to the last frame sent
    uint64_t gather_us_max           # ... of which stepping what arrived
    uint64_t received_by_kind[256]
    uint64_t sent_by_kind[256]

cdef class Reactor:
    cdef readonly EngineCore engine
    cdef readonly Wal wal
    cdef readonly Batcher batcher
    cdef readonly Links links
    cdef Waker waker                 # the batcher's
    cdef readonly ReadDesk reads
    cdef Mailbox mailbox
    cdef ColdQueue cold
    cdef ChosenQueue chosen
    cdef pthread_t thread
    cdef Gate exit_gate
    cdef uint32_t state              # ThreadState
    cdef uint32_t stop_requested
    cdef uint64_t spin_us
    cdef uint64_t spun_us            # when this wait was polled last; 0: it was not
    cdef uint32_t spin_pause         # so many waits are slept through before the next one is polled
    cdef uint32_t spin_penalty       # what spin_pause becomes when polling fails the next time
    cdef bint disk_is_full           # the records of the last pass wait for space
    cdef uint64_t worked_us          # when the last pass found something to do
    cdef int pid
    cdef uint32_t fault_code         # written once, after fault_text
    cdef char fault_text[FAULT_TEXT_BYTES]
    cdef Totals totals               # written by the reactor only

    cdef void run(self) noexcept nogil
    cdef bint _gather(self, uint64_t now_us) noexcept nogil
    cdef bint _read_mail(self) noexcept nogil
    cdef bint _read_frames(self, uint64_t now_us) noexcept nogil
    cdef bint _take_batches(self) noexcept nogil
    cdef void _carry_out(self, uint64_t now_us) noexcept nogil
    cdef bint _make_durable(self) noexcept nogil
    cdef void _mark_log(self, uint64_t now_us) noexcept nogil
    cdef void _send(self, OutgoingList *outgoing) noexcept nogil
    cdef bint _engine_failed(self) noexcept nogil
    cdef bint _spin(self, uint64_t now_us) noexcept nogil
    cdef void _sleep(self, uint64_t now_us) noexcept nogil
    cdef void _fail(self, uint32_t code, const char *what, int error) noexcept nogil
    cdef bint _may_take(self) noexcept nogil
