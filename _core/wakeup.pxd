# How threads of one node wake each other without the GIL and without a system call when nobody sleeps.
#
# A Gate is an event count: whoever waits registers, reads `sequence`, looks at the condition once more and
# only then sleeps on `sequence`; whoever changes the condition calls gate_wake afterwards. A change between
# the look and the sleep moves `sequence`, so the sleep returns at once. A Waker is the reactor's twin of it:
# the same protocol with a flag and an eventfd, because the reactor sleeps in poll together with its sockets.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef PAXOS_WAKEUP_H
    #define PAXOS_WAKEUP_H
    #include <errno.h>
    #include <limits.h>
    #include <linux/futex.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    typedef struct PaxosGate {
        uint32_t sequence;
        uint32_t waiters;
    } PaxosGate;

    /* Microseconds on the clock that goes on counting while the machine sleeps. */
    static inline uint64_t paxos_clock_us(void) {
        struct timespec now;
        clock_gettime(CLOCK_BOOTTIME, &now);
        return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
    }
    /* 0 when woken or when *word was not `expected`; ETIMEDOUT; EINTR. */
    static inline int paxos_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_us) {
        struct timespec timeout;
        if (timeout_us < 0)
            timeout_us = 0;
        timeout.tv_sec = timeout_us / 1000000;
        timeout.tv_nsec = (timeout_us % 1000000) * 1000;
        if (syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &timeout, NULL, 0) == 0)
            return 0;
        return errno == EAGAIN ? 0 : errno;
    }
    static inline void paxos_futex_wake(uint32_t *word, int threads) {
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
    }
    static inline uint32_t paxos_gate_enter(PaxosGate *gate) {
        __atomic_fetch_add(&gate->waiters, 1, __ATOMIC_SEQ_CST);
        return __atomic_load_n(&gate->sequence, __ATOMIC_SEQ_CST);
    }
    static inline void paxos_gate_leave(PaxosGate *gate) {
        __atomic_fetch_sub(&gate->waiters, 1, __ATOMIC_SEQ_CST);
    }
    static inline int paxos_gate_sleep(PaxosGate *gate, uint32_t seen, int64_t timeout_us) {
        return paxos_futex_wait(&gate->sequence, seen, timeout_us);
    }
    static inline void paxos_gate_wake(PaxosGate *gate, int threads) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (__atomic_load_n(&gate->waiters, __ATOMIC_SEQ_CST) != 0) {
            __atomic_fetch_add(&gate->sequence, 1, __ATOMIC_SEQ_CST);
            paxos_futex_wake(&gate->sequence, threads);
        }
    }
    static inline void paxos_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    static inline uint32_t paxos_load32(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
    static inline void paxos_store32(uint32_t *word, uint32_t value) {
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    }
    static inline uint32_t paxos_exchange32(uint32_t *word, uint32_t value) {
        return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
    }
    static inline uint64_t paxos_load64(uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
    static inline void paxos_store64(uint64_t *word, uint64_t value) {
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    }
    static inline void paxos_add64(uint64_t *word, uint64_t value) {
        __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
    }
    static inline void paxos_subtract64(uint64_t *word, uint64_t value) {
        __atomic_fetch_sub(word, value, __ATOMIC_SEQ_CST);
    }
    #endif
    """
    ctypedef struct Gate "PaxosGate":
        uint32_t sequence
        uint32_t waiters

    uint64_t clock_us "paxos_clock_us"() noexcept nogil
    int futex_wait "paxos_futex_wait"(uint32_t *word, uint32_t expected, int64_t timeout_us) noexcept nogil
    void futex_wake "paxos_futex_wake"(uint32_t *word, int threads) noexcept nogil
    # Register and read the sequence; then look at the condition; then sleep; then leave.
    uint32_t gate_enter "paxos_gate_enter"(Gate *gate) noexcept nogil
    void gate_leave "paxos_gate_leave"(Gate *gate) noexcept nogil
    int gate_sleep "paxos_gate_sleep"(Gate *gate, uint32_t seen, int64_t timeout_us) noexcept nogil
    # Call after the condition was changed. Costs a fence and a load when nobody waits.
    void gate_wake "paxos_gate_wake"(Gate *gate, int threads) noexcept nogil
    void fence "paxos_fence"() noexcept nogil
    # Sequentially consistent access to words that threads share.
    uint32_t load32 "paxos_load32"(uint32_t *word) noexcept nogil
    void store32 "paxos_store32"(uint32_t *word, uint32_t value) noexcept nogil
    uint32_t exchange32 "paxos_exchange32"(uint32_t *word, uint32_t value) noexcept nogil
    uint64_t load64 "paxos_load64"(uint64_t *word) noexcept nogil
    void store64 "paxos_store64"(uint64_t *word, uint64_t value) noexcept nogil
    void add64 "paxos_add64"(uint64_t *word, uint64_t value) noexcept nogil
    void subtract64 "paxos_subtract64"(uint64_t *word, uint64_t value) noexcept nogil

    const int WAKE_ALL "INT_MAX"

cdef enum:
    SIGNAL_CHECK_US = 50000     # a waiting Python thread looks for signals (Ctrl-C) this often

cdef class Waker:
    """Wakes one thread that sleeps in poll; any thread may call it."""
    cdef int fd                 # eventfd; readable after a wake-up
    cdef uint32_t sleeping      # 1: the owner is about to poll, or polls
    cdef uint64_t wakes         # eventfd writes, for status

    # Wake the owner if it sleeps. Call after the reason to wake was made visible.
    cdef void wake(self) noexcept nogil
    # The owner's side: announce the sleep (then look at every reason once more), end it.
    cdef void begin_sleep(self) noexcept nogil
    cdef void end_sleep(self, bint readable) noexcept nogil    # readable: what poll said of `fd`

# Microseconds of a timeout in seconds; None is for ever. Raises TypeError or ConfigError.
cdef int64_t timeout_to_us(object timeout_s) except -1
