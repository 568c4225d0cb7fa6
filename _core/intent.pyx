"""Intents: the control thread's requests to the reactor, as plain C data."""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from libc.stdint cimport uint16_t

from paxos._core.buffer cimport buffer_from_bytes, buffer_release
from paxos._core.codec cimport HEADER_BYTES, header_valid
from paxos._core.peers cimport CONFIGURATION_VERSION, ConfigurationHead, ConfigurationMember
from paxos._core.quorum cimport majority

from paxos.messages import Campaign, Configure, InstallSnapshot, Lead, Resign, Send, Transfer, Trim


cdef Intent *intent_new(uint32_t kind, uint64_t ballot, uint64_t slot, size_t count) noexcept nogil:
    cdef Intent *intent = <Intent *>calloc(1, sizeof(Intent))
    if intent == NULL:
        return NULL
    intent.kind = kind
    intent.ballot = ballot
    intent.slot = slot
    if count:
        intent.value_kinds = <uint8_t *>calloc(count, 1)
        intent.values = <Buffer **>calloc(count, sizeof(Buffer *))
        if intent.value_kinds == NULL or intent.values == NULL:
            intent_free(intent)
            return NULL
        intent.count = count
    return intent


cdef void intent_free(Intent *intent) noexcept nogil:
    cdef size_t i
    if intent == NULL:
        return
    for i in range(intent.count):
        buffer_release(intent.values[i])
    free(intent.values)
    free(intent.value_kinds)
    free(intent)


cdef Intent *checked(Intent *intent) except NULL:
    if intent == NULL:
        raise MemoryError("no memory for an intent")
    return intent


cdef bytes configuration_of(object members):
    """Return the value of a configuration of these storages, with majorities and without addresses."""
    cdef ConfigurationHead head
    cdef ConfigurationMember item
    head.version = CONFIGURATION_VERSION
    head.count = len(members)
    head.prepare_size = <uint16_t>majority(head.count)
    head.accept_size = head.prepare_size
    value = (<uint8_t *>&head)[:sizeof(head)]
    for node_id, storage in sorted(members.items()):
        item.node_id = node_id
        memcpy(item.storage, <const uint8_t *>storage, 16)
        item.role = 1
        item.address_bytes = 0
        value += (<uint8_t *>&item)[:sizeof(item)]
    return value


cdef Intent *intent_from_python(object intent) except NULL:
    cdef Intent *made
    cdef const uint8_t[::1] frame
    cdef size_t i
    if isinstance(intent, Campaign):
        return checked(intent_new(INTENT_CAMPAIGN, intent.ballot, intent.from_slot, 0))
    if isinstance(intent, Transfer):
        return checked(intent_new(INTENT_TRANSFER, 0, intent.heir, 0))
    if isinstance(intent, Resign):
        return checked(intent_new(INTENT_RESIGN, 0, 0, 0))
    if isinstance(intent, Lead):
        made = checked(intent_new(INTENT_LEAD, intent.ballot, intent.first_slot, len(intent.values)))
        try:
            for i, (kind, value) in enumerate(intent.values):
                made.value_kinds[i] = kind
                made.values[i] = buffer_from_bytes(value) if value else NULL
        except BaseException:
            intent_free(made)
            raise
        return made
    if isinstance(intent, Configure):
        made = checked(intent_new(INTENT_CONFIGURE, 0, intent.slot, 1))
        try:
            made.values[0] = buffer_from_bytes(configuration_of(intent.members))
        except BaseException:
            intent_free(made)
            raise
        return made
    if isinstance(intent, Trim):
        return checked(intent_new(INTENT_TRIM, 0, intent.upto, 0))
    if isinstance(intent, InstallSnapshot):
        packed = b"".join(
            origin.to_bytes(2, "little") + incarnation.to_bytes(8, "little") + ticket.to_bytes(8, "little")
            for origin, (incarnation, ticket) in sorted(intent.sessions.items())
        )
        made = checked(intent_new(INTENT_INSTALL, intent.last_index, intent.upto, 2))
        made.header.slot = intent.config_slot
        try:
            made.values[0] = buffer_from_bytes(packed) if packed else NULL
            made.values[1] = buffer_from_bytes(intent.configuration) if intent.configuration else NULL
        except BaseException:
            intent_free(made)
            raise
        return made
    if isinstance(intent, Send):
        frame = intent.frame
        if frame.shape[0] < HEADER_BYTES or not header_valid(&frame[0], HEADER_BYTES):
            raise ValueError("Send needs one whole frame")
        made = checked(intent_new(INTENT_SEND, 0, 0, 1 if frame.shape[0] > HEADER_BYTES else 0))
        memcpy(&made.header, &frame[0], HEADER_BYTES)
        if made.count:
            try:
                made.values[0] = buffer_from_bytes(frame[HEADER_BYTES:])
            except BaseException:
                intent_free(made)
                raise
        return made
    raise TypeError(f"not an intent: {intent!r}")
