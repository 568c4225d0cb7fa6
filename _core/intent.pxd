# What the control thread asks of the reactor. It worked on copies, so the engine checks an intent against its
# present state before it acts; a stale one is dropped and counted.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader

cdef enum IntentKind:
    INTENT_CAMPAIGN = 1    # promise `ballot` ourselves; once that is durable, send Prepare(ballot, slot)
    INTENT_LEAD = 2        # lead at `ballot`: propose `values` from `slot` on, a no-op, then new batches
    INTENT_SEND = 3        # send `header` and values[0], if any, to its receiver
    INTENT_TRANSFER = 4    # hand leadership to node `slot`
    INTENT_RESIGN = 5      # stop leading
    INTENT_CONFIGURE = 6   # values[0]: members and storage UUIDs chosen in `slot`; they govern from slot + 1
    INTENT_TRIM = 7        # a durable snapshot covers the slots up to `slot`
    INTENT_INSTALL = 8     # a durable snapshot at `slot`, last index `ballot`; sessions, configuration

cdef struct Intent:
    uint32_t kind
    uint64_t ballot
    uint64_t slot
    size_t count
    uint8_t *value_kinds   # `count` of them, owned
    Buffer **values        # `count` of them, one reference each (NULL: empty value), owned
    FrameHeader header
    Intent *next           # for mailboxes

cdef Intent *intent_new(uint32_t kind, uint64_t ballot, uint64_t slot, size_t count) noexcept nogil
cdef void intent_free(Intent *intent) noexcept nogil
# Build an Intent from one of the dataclasses of paxos.messages. Raises TypeError, ValueError, MemoryError.
cdef Intent *intent_from_python(object intent) except NULL
