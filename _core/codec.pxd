# The one encoding. A frame is a header of 72 bytes and, for some kinds, a payload in a message part of its
# own. A value (what a slot holds) is a payload: it crosses the wire, lies in the log and is read by the
# application as the same bytes, checksummed once by whoever sealed it. docs/wire-format.md is this file in
# words. All integers are little-endian; the structs below are the wire format.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from paxos._core.buffer cimport Buffer

cdef enum:
    FRAME_MAGIC = 0x5850          # "PX"
    PROTOCOL_VERSION = 1
    HEADER_BYTES = 72
    PAYLOAD_BYTES_MAX = 1 << 28   # no length above this is ever believed

# Numbers are never reused. A role ignores kinds that it does not know; the engine counts them.
cpdef enum FrameKind:
    HELLO = 1            # payload Hello: who speaks, from which storage, with which versions
    PING = 2             # payload Ping: opens a heartbeat round
    PONG = 3             # payload Pong: answers one round of one incarnation
    PREPARE = 4          # ballot; slot = first slot asked for; mark = slot of the sender's newest configuration
    PROMISE = 5          # ballot; slot = from; mark = chosen_upto; detail = page; payload Promise page
    OPEN = 6             # ballot; slot = start of the stream
    ACCEPT = 7           # ballot, slot; mark = chosen_upto; detail = ValueKind; payload = value
    ACCEPT_REF = 8       # ballot, slot; mark = ballot at which the receiver accepted the value
    ACCEPTED = 9         # ballot; slot = upto (durable); mark = the acceptor's chosen_upto
    DECIDE = 10          # ballot; mark = chosen_upto
    NACK = 11            # ballot refused; detail = NackReason; slot = expected; mark = promised
    FORWARD = 12         # detail = hops so far; payload = a batch to be proposed
    FETCH = 13           # slot, ballot: the value accepted at exactly that ballot, please
    FETCHED = 14         # slot, ballot; detail = FetchStatus << 8 | ValueKind; mark = trimmed; payload = value
    FETCH_CHOSEN = 15    # slot = first wanted; mark = last wanted
    CHOSEN = 16          # slot; detail = ValueKind; mark = last slot of this burst; payload = value, known chosen
    CHOSEN_GONE = 17     # slot = first wanted; mark = trimmed: only a snapshot can help
    TRANSFER = 18        # ballot of the leader; slot = node id of the heir
    RESULT = 19          # reserved: answers to clients that are not replicas
    READ_INDEX = 20      # slot = number of the asker's read round; detail = hops so far: a mark to read at, please
    READ_MARK = 21       # slot = that number; mark = chosen_upto to read at; ballot = leader's; payload ReadMark
    SNAPSHOT_OFFER = 22  # reserved: snapshots
    SNAPSHOT_CHUNK = 23  # reserved
    MEMBER_CHANGE = 24   # reserved: membership
    REFUSE = 25          # payload Refuse: the receiver's Hello is not believed
    ROUND_CLOSED = 64    # never on the wire: the reactor tells the control thread how a round ended
    STOPPED_LEADING = 65 # never on the wire: ballot = the ballot that is led no longer

cpdef enum ValueKind:
    NOOP = 1
    BATCH = 2
    CONFIGURATION = 3

cpdef enum NackReason:
    NACK_PROMISED = 1    # a higher ballot was promised: `mark`
    NACK_HAPPY = 2       # a working leader is heard; no Prepare is needed
    NACK_REMOVED = 3     # the sender is no member of the newest configuration known here
    NACK_GAP = 4         # the stream expects `slot`
    NACK_STREAM = 5      # no stream of this ballot is open; `slot` = chosen_upto + 1

cpdef enum FetchStatus:
    FETCH_OK = 0
    FETCH_TRIMMED = 1
    FETCH_DAMAGED = 2
    FETCH_REPLACED = 3   # accepted here at another ballot, or never

cdef packed struct FrameHeader:
    uint16_t magic
    uint8_t version
    uint8_t kind             # FrameKind
    uint32_t group
    uint16_t sender          # node id
    uint16_t receiver        # node id
    uint16_t detail          # meaning by kind, see above
    uint16_t reserved
    uint32_t payload_bytes
    uint32_t payload_crc     # CRC-32C of the payload; 0 without one
    uint64_t incarnation     # of the sender
    uint64_t cluster
    uint64_t ballot
    uint64_t slot
    uint64_t mark
    uint32_t reserved2
    uint32_t header_crc      # CRC-32C of the 68 bytes before it

cpdef enum HelloFlag:
    HELLO_ANSWER_WANTED = 1
    HELLO_QUARANTINED = 2    # the sender never votes again in this identity; it only learns

cdef enum:
    HELLO_BYTES_LEAST = 24   # without what was added later: nothing is concluded from what is not there

cdef packed struct HelloPayload:
    uint16_t version_min
    uint16_t version_max
    uint32_t flags           # HelloFlag
    uint8_t storage[16]      # storage UUID
    uint64_t nonce           # random, new at every start: two processes with one identity have two
    uint64_t answers         # nonce of the Hello that this one answers; 0: unasked
    uint64_t promised        # durable promise ...
    uint64_t position        # ... and end of the log as this life of the sender found them

# Why a Hello is not believed. Whoever is told stops voting, except for the first.
cpdef enum RefuseReason:
    REFUSE_STORAGE = 1       # the member was bound to another disk
    REFUSE_ROLLED_BACK = 2   # it shows less than it has shown before
    REFUSE_DUPLICATE = 3     # another process runs under this identity

cdef packed struct RefusePayload:
    uint64_t incarnation     # that is refused, and its nonce: nobody else is meant
    uint64_t nonce           # 0: whatever its nonce is
    uint64_t seen_incarnation
    uint64_t seen_promised
    uint64_t seen_position
    uint32_t reason          # RefuseReason
    uint32_t reserved

cpdef enum PingFlag:
    PING_LEADS = 1

cdef packed struct PingPayload:
    uint64_t round           # the asker's heartbeat round
    uint64_t ballot          # the ballot that the asker leads; 0 if none
    uint64_t sent_upto       # highest slot sent to this peer at that ballot
    uint64_t chosen_upto
    uint32_t flags
    uint32_t reserved
    uint64_t read_round      # the asker's read round; 0: this Ping is for elections only

cpdef enum PongFlag:
    PONG_LEADS = 1
    PONG_CONNECTED = 2
    PONG_HAPPY = 4
    PONG_VOTES = 8

cdef packed struct PongPayload:
    uint64_t round           # copied from the Ping
    uint64_t asker           # copied: the asker's incarnation
    uint64_t promised        # durable
    uint64_t leader          # ballot of the leader that is followed; 0 if none
    uint64_t stream_ballot
    uint64_t stream_start
    uint64_t stream_upto     # durable
    uint64_t chosen_upto
    uint32_t flags           # PongFlag
    uint32_t priority
    uint64_t read_round      # copied from the Ping
    uint64_t position        # the log is durable up to here

# What a release without read rounds sends ends before `read_round`; it counts as 0.
cdef enum:
    PING_BYTES_MIN = 40
    PONG_BYTES_MIN = 72

cdef packed struct ReadMarkPayload:
    uint64_t asker           # incarnation that asked: two lives of a node use the same numbers [h9]

# A page of a promise: this head, then `count` entries. Every page of one promise is built in one step.
cdef packed struct PromiseHead:
    uint64_t trimmed
    uint64_t config_slot     # slot of the newest configuration known here to be chosen; 0 = none
    uint32_t page            # 0 .. pages - 1
    uint32_t pages
    uint32_t count
    uint32_t report          # counts the reports of this incarnation: pages of two never make one promise
    uint8_t storage[16]      # storage UUID of the acceptor

cpdef enum PromiseFlag:
    ENTRY_DAMAGED = 1

cdef packed struct PromiseEntry:
    uint64_t slot
    uint64_t ballot          # accepted at; BALLOT_CHOSEN for a value learned as chosen
    uint32_t length
    uint32_t crc
    uint16_t kind            # ValueKind
    uint16_t flags
    uint32_t reserved

# Never on the wire: how a heartbeat round ended, for the control thread.
cpdef enum RoundFlag:
    ROUND_LEADS = 1
    ROUND_CONNECTED = 2
    ROUND_HAPPY = 4
    ROUND_VOTES = 8
    ROUND_CANDIDATE = 16     # may try to lead
    ROUND_LAGGING = 32       # somebody knows more chosen slots, and this node does not advance by itself
    ROUND_ALL_HEARD = 64     # every member answered

cdef packed struct RoundSummary:
    uint64_t round
    uint64_t promised
    uint64_t chosen_upto
    uint64_t ballot          # that this node leads; 0 if none
    uint64_t leader          # ballot of the leader that is followed; 0 if none
    uint64_t best_chosen     # highest chosen_upto heard
    uint64_t config_slot
    uint32_t flags           # RoundFlag
    uint16_t best_peer       # who told best_chosen
    uint16_t heard           # members heard, this node included
    uint64_t patience_us     # how long answers are waited for at present

# The value of a BATCH slot: this head, then `count` commands, each a uint32 length and its bytes. Tickets
# number the commands of one (origin, incarnation) 1, 2, 3 ... so that a batch that was proposed twice is
# applied once. The origin seals the batch; the leader proposes these very bytes.
cdef packed struct BatchHead:
    uint64_t incarnation     # of the origin
    uint64_t first_ticket
    uint64_t stamp_ms        # reserved for log time; 0 now
    uint32_t count
    uint16_t origin          # node id
    uint16_t flags

# Fill in every field that is the same in all kinds; the caller then sets what the kind needs and seals.
cdef void header_seal(FrameHeader *header, const Buffer *payload, uint32_t payload_crc) noexcept nogil
# True if `size` bytes at `data` are one header of this protocol: magic, version, checksum, payload bound.
cdef bint header_valid(const uint8_t *data, size_t size) noexcept nogil
# True if `data` is a complete, consistent BATCH value (every command length checked); fills `head`.
cdef bint batch_valid(const uint8_t *data, size_t size, BatchHead *head) noexcept nogil
