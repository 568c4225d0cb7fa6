"""The members of the present configuration, and what is known of their identity."""

cimport cython
from libc.string cimport memcmp, memcpy, memset

from paxos._core.quorum cimport majority


cdef bint configuration_valid(const uint8_t *data, size_t size) noexcept nogil:
    cdef ConfigurationHead head
    cdef ConfigurationMember member
    cdef uint16_t seen[MEMBERS_MAX]
    cdef size_t offset = sizeof(head)
    cdef int i, j
    if size < sizeof(head):
        return False
    memcpy(&head, data, sizeof(head))
    if head.version != CONFIGURATION_VERSION or not 1 <= head.count <= MEMBERS_MAX:
        return False
    if (
        not 1 <= head.prepare_size <= head.count or not 1 <= head.accept_size <= head.count
        or head.prepare_size + head.accept_size <= head.count
    ):
        return False
    for i in range(head.count):
        if size - offset < sizeof(member):
            return False
        memcpy(&member, data + offset, sizeof(member))
        offset += sizeof(member)
        if member.node_id == 0 or size - offset < member.address_bytes:
            return False
        offset += member.address_bytes
        seen[i] = member.node_id
        for j in range(i):
            if seen[j] == member.node_id:
                return False
    return offset == size


@cython.final
cdef class Peers:
    """Members by place, quorum sizes, and the identity of this node.

    Args:
        node_id: this node, 1..65535.
        members: node id to storage UUID (16 bytes), or None while no configuration has bound it.
        cluster: cluster id; frames of another cluster are dropped.
        incarnation: number of this start of the node.
        storage: storage UUID of this node, 16 bytes.
        nonce: random number of this start, which tells two processes with one identity apart; 0: none.

    Raises:
        ValueError: no members, too many, an id out of range, a UUID of the wrong size.
    """

    def __init__(
        self,
        node_id: int,
        members: dict[int, bytes | None],
        *,
        cluster: int = 0,
        incarnation: int = 1,
        storage: bytes = bytes(16),
        group: int = 0,
        nonce: int = 0,
    ) -> None:
        if not 1 <= node_id <= 0xFFFF:
            raise ValueError(f"node id {node_id} is not in 1..65535")
        if len(storage) != 16:
            raise ValueError(f"a storage UUID has 16 bytes, not {len(storage)}")
        self.node_id = node_id
        self.cluster = cluster
        self.incarnation = incarnation
        self.nonce = nonce
        self.group = group
        memcpy(self.storage, <const uint8_t *>storage, 16)
        self.assume(members)

    def assume(self, members: dict[int, bytes | None]) -> None:
        """Start from ``members``, as the constructor does: only while no configuration is known to be chosen.

        Raises:
            ValueError: a configuration rules already, or the members do not make sense.
        """
        if self.config_slot:
            raise ValueError(f"the configuration of slot {self.config_slot} rules; members change through the log")
        if not 1 <= len(members) <= MEMBERS_MAX:
            raise ValueError(f"{len(members)} members; there can be 1 to {MEMBERS_MAX}")
        memset(self.items, 0, sizeof(self.items))
        for i, (member, known) in enumerate(sorted(members.items())):
            if not 1 <= member <= 0xFFFF:
                raise ValueError(f"node id {member} is not in 1..65535")
            if known is not None and len(known) != 16:
                raise ValueError(f"a storage UUID has 16 bytes, not {len(known)}")
            self.items[i].node_id = member
            self.items[i].is_bound = known is not None
            if known is not None:
                memcpy(self.items[i].storage, <const uint8_t *>known, 16)
        self._set_count(len(members))

    cdef void _set_count(self, int count) noexcept nogil:
        self.count = count
        self.prepare_size = majority(count)
        self.accept_size = majority(count)
        self.own = self.place(self.node_id)

    cdef bint install(self, uint64_t config_slot, const uint8_t *data, size_t size) noexcept nogil:
        cdef Peer fresh[MEMBERS_MAX]
        cdef Peer *peer
        cdef ConfigurationHead head
        cdef ConfigurationMember member
        cdef int i, known
        if config_slot <= self.config_slot or not configuration_valid(data, size):
            return False
        memcpy(&head, data, sizeof(head))
        data += sizeof(head)
        memset(fresh, 0, sizeof(fresh))
        for i in range(head.count):
            peer = &fresh[i]
            memcpy(&member, data, sizeof(member))
            data += sizeof(member) + member.address_bytes
            known = self.place(member.node_id)
            if known >= 0:
                # What another storage has shown was not shown by the one that is bound.
                self.meet(known, member.storage)
                peer[0] = self.items[known]
            peer.node_id = member.node_id
            peer.is_bound = True
            memcpy(peer.storage, member.storage, 16)
        memcpy(self.items, fresh, sizeof(fresh))
        self.config_slot = config_slot
        self._set_count(head.count)
        return True

    cdef int place(self, uint16_t node_id) noexcept nogil:
        cdef int i
        for i in range(self.count):
            if self.items[i].node_id == node_id:
                return i
        return -1

    cdef void meet(self, int place, const uint8_t *storage) noexcept nogil:
        cdef Peer *peer = &self.items[place]
        cdef uint16_t node_id = peer.node_id
        if memcmp(peer.storage, storage, 16) == 0:
            return
        memset(peer, 0, sizeof(Peer))
        peer.node_id = node_id
        memcpy(peer.storage, storage, 16)

    cdef FrameHeader header(self, uint8_t kind, uint16_t receiver) noexcept nogil:
        cdef FrameHeader header
        memset(&header, 0, sizeof(header))
        header.kind = kind
        header.group = self.group
        header.sender = self.node_id
        header.receiver = receiver
        header.incarnation = self.incarnation
        header.cluster = self.cluster
        return header

    def members(self) -> dict[int, bytes | None]:
        """Return node id to bound storage UUID (None while unbound)."""
        return {
            self.items[i].node_id: (self.items[i].storage[:16] if self.items[i].is_bound else None)
            for i in range(self.count)
        }
