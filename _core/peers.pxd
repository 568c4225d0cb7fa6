# Who takes part: the members of the newest configuration known here to be chosen, this node among them.
# Every role looks members up here by their place (0 .. count - 1).

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from paxos._core.buffer cimport Buffer
from paxos._core.codec cimport FrameHeader
from paxos._core.quorum cimport MEMBERS_MAX

# The value of a CONFIGURATION slot (paxos/membership.py writes it): this head, then `count` members, each
# followed by its address. All members vote; `role` is there for those who will not.
cdef packed struct ConfigurationHead:
    uint16_t version
    uint16_t count
    uint16_t prepare_size     # q1
    uint16_t accept_size      # q2

cdef packed struct ConfigurationMember:
    uint16_t node_id
    uint8_t storage[16]
    uint8_t role
    uint16_t address_bytes

cdef enum:
    CONFIGURATION_VERSION = 1

# True if `size` bytes at `data` are a configuration that this release can follow: complete, members distinct,
# and every prepare quorum meets every accept quorum.
cdef bint configuration_valid(const uint8_t *data, size_t size) noexcept nogil

cdef struct Peer:
    uint16_t node_id
    bint is_bound            # `storage` is fixed by a chosen configuration
    bint is_verified         # a Hello of `incarnation` came from the right storage
    bint is_quarantined      # it says itself that it never votes: nothing that it sends is a vote
    bint has_answered        # ... the first Hello of this life of ours, and believed it
    uint64_t incarnation     # of the life whose frames are taken
    uint64_t nonce           # of that life; 0: not told
    # The most that this member has ever shown here, as far as this node remembers. What goes back is refused.
    uint64_t seen_incarnation
    uint64_t seen_nonce
    uint64_t seen_promised
    uint64_t seen_position
    uint64_t noted_incarnation       # ... of which the log of this node has a note
    uint64_t noted_position
    uint64_t noted_round
    uint8_t storage[16]

cdef class Peers:
    cdef Peer items[MEMBERS_MAX]
    cdef readonly int count
    cdef readonly int own            # own place; -1 when this node is no member
    cdef readonly uint16_t node_id
    cdef readonly uint64_t incarnation
    cdef readonly uint64_t nonce          # of this start; 0: none was given, and no other process is told apart
    cdef readonly uint64_t cluster
    cdef readonly unsigned int group
    cdef readonly uint64_t config_slot    # slot in which the configuration was chosen; 0: from the constructor
    cdef readonly int prepare_size        # q1
    cdef readonly int accept_size         # q2
    cdef uint8_t storage[16]              # of this node

    cdef int place(self, uint16_t node_id) noexcept nogil    # -1: no member
    # An unbound member shows this storage: what another one has shown says nothing about it, and is forgotten.
    cdef void meet(self, int place, const uint8_t *storage) noexcept nogil
    # Install the configuration chosen in `config_slot`. False if it is not newer than the present one or makes
    # no sense.
    cdef bint install(self, uint64_t config_slot, const uint8_t *data, size_t size) noexcept nogil
    # A zeroed header from this node to `receiver` with everything set that all kinds share.
    cdef FrameHeader header(self, uint8_t kind, uint16_t receiver) noexcept nogil

    cdef void _set_count(self, int count) noexcept nogil
