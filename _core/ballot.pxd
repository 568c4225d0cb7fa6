# A ballot is one uint64: the round in the high 48 bits, the proposer's node id in the low 16, so that
# integer order is the protocol's order and no two nodes ever share a ballot.

from libc.stdint cimport uint64_t

cdef enum:
    NODE_ID_MAX = 0xFFFF
    NODE_BITS = 16

cdef extern from *:
    """
    #define PAXOS_BALLOT_NONE   ((uint64_t)0)
    #define PAXOS_BALLOT_MAX    ((uint64_t)0x7FFFFFFFFFFFFFFF)
    #define PAXOS_BALLOT_CHOSEN ((uint64_t)0xFFFFFFFFFFFFFFFF)
    """
    const uint64_t BALLOT_NONE "PAXOS_BALLOT_NONE"        # below every ballot: nothing promised yet
    const uint64_t BALLOT_MAX "PAXOS_BALLOT_MAX"          # the highest ballot that anyone may use
    const uint64_t BALLOT_CHOSEN "PAXOS_BALLOT_CHOSEN"    # rank of a value learned as chosen: above all




cdef inline uint64_t ballot_make(uint64_t round_number, uint64_t node_id) noexcept nogil:
    return (round_number << NODE_BITS) | node_id


cdef inline uint64_t ballot_round(uint64_t ballot) noexcept nogil:
    return ballot >> NODE_BITS


cdef inline uint64_t ballot_node(uint64_t ballot) noexcept nogil:
    return ballot & NODE_ID_MAX
